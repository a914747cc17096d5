"""Extension of the reference in docs/: add the parameters of base classes, and show defaults as values."""

from __future__ import annotations

from typing import Any

from griffe import AliasResolutionError, Class, Expr, Extension, Function, Module, ParameterKind


class ReferenceParameters(Extension):
    """
    Adds to each ``__init__`` the parameters that its ``**kwargs`` pass to a base class of this package.

    A default that is the name of a constant of this package becomes its value.
    """

    def on_package(self, *, pkg: Module, **_: Any) -> None:
        self._visit(pkg)

    def _visit(self, scope: Module | Class) -> None:
        for member in scope.members.values():
            if member.is_alias:
                continue
            if member.is_class:
                self._complete(member)
            if member.is_function:
                _resolve_defaults(member)
            if member.is_module or member.is_class:
                self._visit(member)

    def _complete(self, one: Class) -> None:
        own = one.members.get("__init__")
        if own is None or own.parameters[-1].kind is not ParameterKind.var_keyword:
            return
        for base in one.mro():
            inherited = base.members.get("__init__")
            for parameter in inherited.parameters if inherited is not None else ():
                if parameter.name not in own.parameters and parameter.kind is ParameterKind.keyword_only:
                    own.parameters._params.insert(-1, parameter)


def _resolve_defaults(function: Function) -> None:
    for parameter in function.parameters:
        if isinstance(parameter.default, Expr):
            try:
                constant = function.modules_collection[parameter.default.canonical_path]
                if constant.is_attribute and constant.value is not None:
                    parameter.default = constant.value
            except (AliasResolutionError, KeyError):  # it is not of this package
                continue
