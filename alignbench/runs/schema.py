"""Introspection of the settings classes: type, range, default and docstring of each key; JSON schema."""

import ast
import dataclasses
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal

from annotated_types import Ge, Gt, Interval, Le, Lt

Schema = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One field of a settings class."""

    name: str
    hint: Any
    """The annotation, including its range."""
    default: Any
    """The default; MISSING if the key is required."""
    description: str
    """The docstring of the field; empty if it has none."""

    @property
    def type_text(self) -> str:
        """Type and range as text, such as `int ≥ 1 or null`."""
        return describe_type(self.hint)

    @property
    def section(self) -> type | None:
        """The settings class of the key if it is a section, else None."""
        return dataclass_in(self.hint)


def settings_of(cls: type) -> list[Setting]:
    """The fields of a settings class in the order of its constructor: inherited ones first."""
    hints, descriptions = typing.get_type_hints(cls, include_extras=True), field_docstrings(cls)
    return [
        Setting(name=f.name, hint=hints[f.name], default=default_of(f), description=descriptions.get(f.name, ""))
        for f in fields(cls)
    ]


def default_of(field: "dataclasses.Field[Any]") -> Any:
    """The default of a field; MISSING if it has none."""
    return field.default if field.default_factory is MISSING else field.default_factory()


def field_docstrings(cls: type) -> dict[str, str]:
    """The docstring of each field, on one line; a field without one inherits that of the base class."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        (node,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(node, ast.ClassDef)
        for field, below in zip(node.body, node.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and _is_text(below):
                found[field.target.id] = " ".join(below.value.value.split())  # type: ignore[attr-defined]  # a string
    return found


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def dataclass_in(hint: Any) -> type | None:
    """The dataclass of a hint such as `Lora` or `Lora | None`."""
    return next((h for h in alternatives(hint) if isinstance(h, type) and dataclasses.is_dataclass(h)), None)


def alternatives(hint: Any) -> tuple[Any, ...]:
    """The members of a union; any other hint is returned as the only member."""
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


# --- as text ---------------------------------------------------------------------------------------------------------


def describe_type(hint: Any) -> str:
    """Type and range of a hint as text."""
    return " or ".join(_describe_one(each) for each in alternatives(hint))


def _describe_one(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return f"{_describe_one(arguments[0])} {_range(limits(arguments[1:]))}"
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (tuple, list):
        return f"list of {describe_type(arguments[0])}"
    if origin in (dict, Mapping):
        return f"mapping of {describe_type(arguments[1])}"
    if hint is type(None):
        return "null"
    if hint is Any or (isinstance(hint, type) and (dataclasses.is_dataclass(hint) or inspect.isabstract(hint))):
        return "section"
    return {str: "text", int: "int", float: "float", bool: "bool"}.get(hint, getattr(hint, "__name__", str(hint)))


def limits(constraints: typing.Iterable[Any]) -> dict[str, Any]:
    """Bounds by the keyword of JSON schema: minimum, exclusiveMinimum, maximum, exclusiveMaximum."""
    found: dict[str, Any] = {}
    for each in constraints:
        bounds = {
            "minimum": each.ge if isinstance(each, Ge | Interval) else None,
            "exclusiveMinimum": each.gt if isinstance(each, Gt | Interval) else None,
            "maximum": each.le if isinstance(each, Le | Interval) else None,
            "exclusiveMaximum": each.lt if isinstance(each, Lt | Interval) else None,
        }
        found |= {name: bound for name, bound in bounds.items() if bound is not None}
    return found


def _range(bounds: Mapping[str, Any]) -> str:
    signs = {"minimum": "\N{GREATER-THAN OR EQUAL TO}", "exclusiveMinimum": ">", "maximum": "\N{LESS-THAN OR EQUAL TO}"}
    return " and ".join(f"{signs.get(name, '<')} {bound:g}" for name, bound in bounds.items())


# --- as JSON schema --------------------------------------------------------------------------------------------------


def class_schema(cls: type) -> Schema:
    """The JSON schema of a section; no key is required, because options and presets set the others."""
    return {
        "type": "object",
        "description": first_sentence(inspect.getdoc(cls) or ""),
        "properties": {"_target_": {"type": "string"}} | {s.name: setting_schema(s) for s in settings_of(cls)},
        "additionalProperties": False,
    }


def setting_schema(setting: Setting) -> Schema:
    """The JSON schema of one key."""
    schema = type_schema(setting.hint) | ({"description": setting.description} if setting.description else {})
    default = plain(setting.default)
    return schema if default is MISSING or isinstance(default, dict) else schema | {"default": default}


def type_schema(hint: Any) -> Schema:
    """The JSON schema of a hint: classes by reference to `$defs`, numbers also as an interpolation such as ${seed}."""
    schemas = [_one_schema(each) for each in alternatives(hint)]
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def _one_schema(hint: Any) -> Schema:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _one_schema(arguments[0]) | limits(arguments[1:])
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (tuple, list):
        return {"type": "array", "items": type_schema(arguments[0])}
    if origin in (dict, Mapping):
        return {"type": "object", "additionalProperties": type_schema(arguments[1])}
    if isinstance(hint, type) and dataclasses.is_dataclass(hint) and not inspect.isabstract(hint):
        return {"$ref": f"#/$defs/{definition(hint)}"}
    if hint in (int, float, bool):
        return {
            "type": [{int: "integer", float: "number", bool: "boolean"}[hint], "string"],
            "pattern": r"^\$\{|^\?\?\?$",
        }
    return {"type": {str: "string", type(None): "null"}.get(hint, "object")}


def definition(cls: type) -> str:
    """The name of a class among the definitions of the schema, such as `rewards.custom.Custom`."""
    return f"{cls.__module__.removeprefix('alignbench.')}.{cls.__qualname__}"


def classes_in(cls: type) -> Iterator[type]:
    """A settings class and all classes of its sections."""
    yield cls
    yield from (setting.section for _, _, setting in walk_settings(cls) if setting.section is not None)


def plain(value: Any) -> Any:
    """A default as a YAML or JSON value: sections as mappings, tuples as lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, Mapping):
        return {name: plain(each) for name, each in value.items()}
    return value


def first_sentence(text: str) -> str:
    """The first sentence of a docstring, on one line."""
    line = " ".join(text.split())
    return re.split(r"(?<=[.])\s+(?=[A-Z])", line, maxsplit=1)[0]


def walk_settings(cls: type, path: str = "") -> Iterator[tuple[str, type, Setting]]:
    """Every key of a class and of its sections: dotted key, class, field."""
    for setting in settings_of(cls):
        key = f"{path}.{setting.name}" if path else setting.name
        yield key, cls, setting
        if setting.section is not None:
            yield from walk_settings(setting.section, key)
