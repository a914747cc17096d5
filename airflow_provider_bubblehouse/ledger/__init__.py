"""
The ledger records what Bubblehouse last accepted of each customer, so that a push sends only changed customers.

The ledger may forget; it must never claim. An entry says "Bubblehouse holds exactly this". But the API may process a
call that ends in 4xx, 5xx or a reset, and a process may die at any point. So these invariants must not be relaxed:

1. A push invalidates entries before the first call: it writes the identities that it is going to send to a pending
   file. An identity in any pending file counts as absent.
2. An entry is written when its batch is accepted and no later row of that customer has been read.
3. Ledger files are immutable and numbered. A push uploads its own under the next number, and only if that number does
   not exist yet; otherwise another push has used the ledger, and the upload is discarded.
4. Only after its upload, a push deletes its own pending file, and of those that it read at its start the ones whose
   push should have ended: an earlier try of the same run, or a push that started with another ledger. One that started
   with the same ledger may still be running, and be killed at any time; its file stays until a later push reads it.
   A push that finds its number taken and its pending file deleted writes the file again.
   This does not cover a push that overlaps two others and is then killed. So only one task at a time may use a ledger.
5. An entry that is too old, from the future, or of a damaged file counts as absent.
"""
