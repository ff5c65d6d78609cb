"""Keys are the same for everybody: they must not depend on which Python parsed the code."""

import ast

from rdfa.identity import canonical

SOURCE = """
@wrap
def f(a, *rest, **more) -> list[int]:
    return lambda: f"{a!r:>8}"


class A(B):
    async def g(self):
        pass
"""

OF_PYTHON_3_11 = (
    "Module(body=[FunctionDef(name='f', args=arguments(posonlyargs=[], args=[arg(arg='a')], vararg=arg(arg='rest'), "
    "kwonlyargs=[], kw_defaults=[], kwarg=arg(arg='more'), defaults=[]), body=[Return(value=Lambda(args=arguments("
    "posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[]), body=JoinedStr(values=[FormattedValue("
    "value=Name(id='a', ctx=Load()), conversion=114, format_spec=JoinedStr(values=[Constant(value='>8')]))])))], "
    "decorator_list=[Name(id='wrap', ctx=Load())], returns=Subscript(value=Name(id='list', ctx=Load()), "
    "slice=Name(id='int', ctx=Load()), ctx=Load())), ClassDef(name='A', bases=[Name(id='B', ctx=Load())], keywords=[], "
    "body=[AsyncFunctionDef(name='g', args=arguments(posonlyargs=[], args=[arg(arg='self')], kwonlyargs=[], "
    "kw_defaults=[], defaults=[]), body=[Pass()], decorator_list=[])], decorator_list=[])], type_ignores=[])"
)
"""What `ast.dump` of Python 3.11 says; keys in committed records are made from that form."""


def test_a_syntax_tree_reads_the_same_under_every_python() -> None:
    assert canonical(ast.parse(SOURCE)) == OF_PYTHON_3_11
