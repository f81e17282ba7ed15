"""Modules whose forward asks for the class of a layer, which would have another answer after `wrap`.

After `wrap`, `isinstance(layer, nn.Linear)` is false, so a forward that asks takes another branch in silence.
That is refused where it can be seen: in the `forward` of a class and in those of its methods that it names,
if their source can be read.
"""

import ast
import functools
import inspect
import textwrap
import types
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from lottalora.scaffold.wrapping.matrices import Owner

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
ASKING = {"isinstance", "type"}


@dataclass(frozen=True)
class Question:
    """One question for the class of an object: `isinstance(object, classes)` or `type(object) is class`.

    Args:
        path: the attributes of self that lead to the object; None if it is anything else.
        classes: the classes that it is compared with, as far as they are globals.
        exact: whether subclasses do not count.
    """

    path: tuple[str, ...] | None
    classes: tuple[type, ...]
    exact: bool

    def lost(self, before: type, after: type) -> type | None:
        """The class for which the answer is yes before and no after; None if there is none."""
        yes = (cls for cls in self.classes if (before is cls if self.exact else issubclass(before, cls)))
        return next((cls for cls in yes if self.exact or not issubclass(after, cls)), None)

    def objects(self, module: nn.Module) -> list[nn.Module]:
        """The modules it can be about: that at the path; or the children, and those in containers."""
        if self.path is None:
            return list(_children(module))
        found: object = module
        for attribute in self.path:
            found = getattr(found, attribute, None)
        return [found] if isinstance(found, nn.Module) else []


def refuse_asked_classes(model: nn.Module, changes: list[tuple[Owner, type[nn.Module]]]) -> None:
    """Refuse a model in which a forward asks for a class that `wrap` takes from a layer.

    Args:
        model: the model.
        changes: each module that gets another class, with that class.

    Raises:
        ValueError: there is one.
    """
    after = {id(owner.module): (owner.layer, cls) for owner, cls in changes}
    for name, module in model.named_modules():
        for layer, lost in _lost_answers(module, after):
            raise ValueError(
                f"Module {name!r} ({type(module).__name__}) asks in its forward whether a layer is a "
                f"{lost.__name__} of {lost.__module__.partition('.')[0]}, and after wrap {layer!r} is none: "
                f"keep=[{layer!r}], or write that forward without the question."
            )


def _lost_answers(
    module: nn.Module, after: dict[int, tuple[str, type[nn.Module]]]
) -> Iterator[tuple[str, type]]:
    """(name of the layer, class it will not be any more) for the questions of one module."""
    # mypy takes the __hash__ of nn.Module's instances for that of the class.
    for question in _questions(type(module)):  # type: ignore[arg-type]  # see above
        for each in question.objects(module):
            if id(each) in after:
                layer, cls = after[id(each)]
                lost = question.lost(type(each), cls)
                if lost is not None:
                    yield layer, lost


def _children(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        yield child
        if isinstance(child, CONTAINERS):
            yield from _children(child)


@functools.cache
def _questions(cls: type) -> tuple[Question, ...]:
    """The questions in the forward of a class, and in those of its methods that the forward names."""
    forward = _method(cls, "forward")
    if forward is None:
        return ()
    named = (_method(cls, name) for name in sorted(_names(forward.__code__) - {"forward"}))
    methods = [forward, *(method for method in named if method is not None)]
    return tuple(question for method in methods for question in _questions_of(method))


def _method(cls: type, name: str) -> types.FunctionType | None:
    """A method of a class, without decorators; None if it is no function, or one of PyTorch's own."""
    found = inspect.getattr_static(cls, name, None)
    found = inspect.unwrap(found) if callable(found) else None
    if not isinstance(found, types.FunctionType):
        return None
    module = found.__module__ or ""  # None for a function that torch.fx wrote
    return None if module.partition(".")[0] == "torch" else found


def _names(code: types.CodeType) -> set[str]:
    """The names of globals and attributes in a function, and in the functions inside it."""
    inner = (_names(each) for each in code.co_consts if isinstance(each, types.CodeType))
    return set(code.co_names).union(*inner)


def _questions_of(method: types.FunctionType) -> Iterator[Question]:
    if ASKING.isdisjoint(_names(method.__code__)):
        return
    for node in ast.walk(_parsed(method)):
        match node:
            case ast.Call(func=ast.Name(id="isinstance"), args=[asked, classes]):
                yield Question(_path(asked), tuple(_classes(classes, method)), exact=False)
            case ast.Compare(left=ast.Call(func=ast.Name(id="type"), args=[asked]), comparators=[classes]):
                yield Question(_path(asked), tuple(_classes(classes, method)), exact=True)


def _parsed(method: types.FunctionType) -> ast.AST:
    """The syntax tree of a function; an empty one if its source cannot be read."""
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(method)))
    except (OSError, SyntaxError):  # typed into a prompt, or a part of an expression
        return ast.Module([], [])


def _path(asked: ast.expr) -> tuple[str, ...] | None:
    """("a", "b") of `self.a.b`; None for anything else."""
    match asked:
        case ast.Attribute(value=ast.Name(id="self"), attr=name):
            return (name,)
        case ast.Attribute(value=inner, attr=name):
            path = _path(inner)
            return path and (*path, name)
    return None


def _classes(node: ast.expr, method: types.FunctionType) -> Iterator[type]:
    """The classes that an expression stands for, as far as it names globals."""
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        for each in node.elts:
            yield from _classes(each, method)
    elif isinstance(node, ast.BinOp):  # A | B
        yield from _classes(node.left, method)
        yield from _classes(node.right, method)
    else:
        yield from _flat(_value(node, method))


def _flat(value: object) -> Iterator[type]:
    if isinstance(value, type):
        yield value
    elif isinstance(value, tuple | list | set | frozenset):
        for each in value:
            yield from _flat(each)
    elif isinstance(value, types.UnionType):
        yield from _flat(value.__args__)


def _value(node: ast.expr, method: types.FunctionType) -> object:
    """What a name or a dotted name stands for; None if it is no global."""
    if isinstance(node, ast.Attribute):
        return getattr(_value(node.value, method), node.attr, None)
    return method.__globals__.get(node.id) if isinstance(node, ast.Name) else None
