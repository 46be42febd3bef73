"""Under test, the shapes and types that core, equations, algorithms and engine promise are checked at every call."""

from jaxtyping import install_import_hook

# Not by jaxtyping's pytest option: it cannot split a list of packages when the checker has parentheses.
install_import_hook(
    ["alignbench.core", "alignbench.equations", "alignbench.algorithms", "alignbench.engine"],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)
