"""
What a customer is: one table of fields (``fields``), and the conversion of rows into customers (``converter``).

Nothing here knows where rows come from or how they are sent.
"""

# Bump it when a row's verdict, its JSON, its identity or its lane changes: a resumed push trusts the rows before it.
RULES_VERSION = 2
