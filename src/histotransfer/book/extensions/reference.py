"""A Sphinx extension that adapts what autodoc and napoleon show of this package's docstrings and signatures."""

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from histotransfer import config

LIMITS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
# Choices that many signatures repeat; there they are shown by name.
ALIASES = ("ProfileName", "Stage")


def setup(app: Any) -> dict[str, bool]:
    """Register the extension; called by Sphinx."""
    app.connect("autodoc-process-signature", _short_signature)
    app.connect("autodoc-process-docstring", _in_our_style, priority=400)  # before napoleon
    app.connect("autodoc-skip-member", _is_repetition)
    return {"parallel_read_safe": True}


def _short_signature(
    app: Any, what: str, name: str, value: Any, options: Any, arguments: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    """Leave out the signature of settings, which are listed below their class: it would fill a screen."""
    if _is_settings(value):
        return None, None
    arguments = arguments and arguments.replace("<factory>", "...")  # else Sphinx does not understand the others either
    return _with_aliases(arguments), _with_aliases(returned)


def _with_aliases(signature: str | None) -> str | None:
    if signature is None:
        return None
    for alias in ALIASES:
        choices = ", ".join(map(repr, get_args(getattr(config, alias))))
        for written in (f"~typing.Literal[{choices}]", f"Literal[{choices}]"):
            signature = signature.replace(written, f"~histotransfer.config.{alias}")
    return signature


def _in_our_style(app: Any, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """List the fields of settings; and keep napoleon from taking prose for a type.

    It reads `One row per image: a, b` as a result of type "One row per image"; an empty type prevents that.
    """
    if _is_settings(value):
        lines += ["", "Args:", *_fields(value)]
    elif what in ("property", "data"):
        lines[0] = f": {lines[0]}"
    elif "Returns:" in lines:
        first = lines.index("Returns:") + 1
        lines[first] = f"    : {lines[first].lstrip()}"


def _is_settings(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseModel)


def _fields(model: type[BaseModel]) -> Iterator[str]:
    """A line for each field: meaning, choices, limits, default; in `LadderConfig` also the values of the profiles."""
    for name, field in model.model_fields.items():
        facts = [field.description or ""]
        if choices := list(_choices(field.annotation)):
            facts.append("choices: " + ", ".join(f"`{choice}`" for choice in choices))
        for limit in field.metadata:
            facts += [f"{word} {getattr(limit, key)}" for key, word in LIMITS.items() if hasattr(limit, key)]
        if not field.is_required():
            facts.append(f"default `{field.get_default(call_default_factory=True)!r}`")
        if model is config.LadderConfig and name != "profile":
            profiles: dict[object, list[str]] = {}
            for profile, values in config.PROFILES.items():
                if name in values:
                    profiles.setdefault(values[name], []).append(profile)
            facts += [f"`{value}` in {' and '.join(names)}" for value, names in profiles.items()]
        yield f"    {name}: {'; '.join(facts)}."


def _choices(annotation: Any) -> Iterator[str]:
    """The choices of a `Literal`, wherever it is in an annotation."""
    for inner in get_args(annotation):
        yield from [inner] if get_origin(annotation) is Literal else _choices(inner)


def _is_repetition(app: Any, what: str, name: str, value: Any, skip: bool, options: Any) -> bool | None:
    """Skip the fields of a named tuple: they are in its signature; `Alias for field number 0` adds nothing."""
    return True if str(value.__doc__).startswith("Alias for field number") else None
