"""Random small templates for template_judge.py, from a grammar and a fixed seed."""

import random

STRING_VARIABLES = ["s", "u", "w", "t0", "d.name", "d['role']", "ms[0].content", "ms[-1]['role']", "ss[1]"]
INTEGER_VARIABLES = ["n", "m", "big", "zero", "xs[0]", "d.count_", "loop.index", "loop.index0", "ns.k"]
LIST_VARIABLES = ["xs", "ss", "ms", "mixed", "d.tags", "empty_list", "nested"]
DICT_VARIABLES = ["d", "ms[0]", "empty_dict", "deep"]
OTHER_VARIABLES = [
    "yes", "no", "nil", "missing", "f", "g", "missing.attr", "d.missing", "ms[9]", "ms[0].missing", "ns",
    "loop.first", "loop.last", "loop.previtem", "loop.nextitem", "loop.length", "loop.revindex", "x", "y",
]

VARIABLES = {
    "s": "Hello, World",
    "u": "Straße café ΣΑΣ 日本語🙂",
    "w": "  a b\tc\n",
    "t0": "",
    "n": 7,
    "m": -3,
    "big": 12345,
    "zero": 0,
    "f": 2.5,
    "g": -0.75,
    "yes": True,
    "no": False,
    "nil": None,
    "xs": [3, 1, 2, 3],
    "empty_list": [],
    "ss": ["b", "a", "C", "abc", "B"],
    "mixed": [1, "a", 2.5, None, True, [1], {"k": 1}],
    "empty_dict": {},
    "nested": [[1, 2], [3, 4], [5, 6]],
    "deep": {"a": {"b": {"c": [1, {"z": "deep"}]}}, "list": [1, 2], "n": 1},
    "d": {"name": "Ann", "role": "user", "count_": 3, "tags": ["x", "y"], "items": "shadow", "nil": None},
    "ms": [
        {"role": "system", "content": "Be <kind>.", "n": 1},
        {"role": "user", "content": "Hi 'there'", "n": 3},
        {"role": "assistant", "content": "Ok\nthen", "tags": ["p", "q"], "n": 2},
    ],
}


class Templates:
    """Small templates from a grammar: mostly meaningful, sometimes wrong on purpose."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.loops = 0

    def pick(self, *choices):
        choice = self.random.choice(choices)
        while (
            isinstance(choice, str)
            and choice.startswith(("loop.", "missing."))
            and not (self.loops or self.chance(0.02))
        ):
            choice = self.random.choice(choices)
        return choice

    def chance(self, share):
        return self.random.random() < share

    def literal_string(self):
        text = self.pick(
            "",
            "a",
            "b c",
            ", ",
            "-",
            "x\\ny",
            "it\\'s",
            "é",
            "日",
            "\\u00e9\\t",
            "%s",
            "{}",
            "A",
            "hello world",
            "1",
            "2.5",
            "a,b,c",
            "role",
            "content",
            "\\x41\\101",
            "<",
            "  ",
            "ß",
        )
        return "'" + text + "'" if self.chance(0.7) or '"' in text else '"' + text.replace("\\'", "'") + '"'

    def string(self, depth):
        if depth <= 0:
            return self.literal_string() if self.chance(0.5) else self.pick(*STRING_VARIABLES)
        one = lambda: self.any_string(depth - 1)
        number = lambda: self.integer(depth - 1)
        kind = self.random.randint(0, 33)
        if kind == 0:
            return f"{one()} + {one()}"
        if kind == 1:
            return f"({one()} ~ {self.any(depth - 1)} ~ {one()})"
        if kind == 2:
            return f"{self.postfix(depth)}[{self.slice(depth)}]"
        if kind == 3:
            return f"{self.postfix(depth)}[{number()}]"
        if kind < 12:
            method = self.pick(
                "upper()",
                "lower()",
                "title()",
                "capitalize()",
                "swapcase()",
                "strip()",
                "lstrip()",
                "rstrip()",
                f"strip({one()})",
                f"replace({one()}, {one()})",
                f"replace({one()}, {one()}, {number()})",
                f"join({self.list(depth - 1)})",
                f"center({self.pick(5, 12, 13)})",
                f"ljust({self.pick(3, 14)}, '*')",
                "zfill(6)",
                f"removeprefix({one()})",
                f"removesuffix({one()})",
                f"format({self.any(depth - 1)})",
                f"rjust({number()})",
            )
            return f"{self.postfix(depth)}.{method}"
        if kind < 26:
            name = self.pick(
                "upper",
                "lower",
                "title",
                "capitalize",
                "trim",
                f"trim({one()})",
                "string",
                "e",
                "safe",
                f"replace({one()}, {one()})",
                f"default({one()})",
                f"default({one()}, true)",
                "tojson",
                f"join({one()})",
                "indent",
                f"indent({self.pick(0, 2, 3)}, true)",
                "indent(2, blank=true)",
                f"truncate({self.pick(3, 5, 9)})",
                "truncate(6, true, '', 0)",
                "center(9)",
                "reverse",
                "tojson(indent=2)",
                "forceescape",
                "urlencode",
                "tojson(separators=(',', ':'))",
                "tojson(sort_keys=true)",
                "tojson(ensure_ascii=true)",
                "filesizeformat",
            )
            return f"{self.operand(depth)} | {name}"
        if kind == 26:
            value = self.pick(self.integer(depth - 1), self.any(depth - 1))
            return f"{self.pick(*[repr(x) for x in FORMATS])} % {value}"
        if kind == 27:
            return (
                f"{self.pick(*[repr(x) for x in FORMATS])} % ({self.any(depth - 1)}, {self.any(depth - 1)})"
            )
        if kind == 28:
            arguments = f"{self.any(depth - 1)}, {number()}, k={one()}"
            return f"{self.pick(*[repr(x) for x in BRACES])}.format({arguments})"
        if kind == 29:
            return f"{self.literal_string()} * {self.pick(0, 1, 3, '(-1)')}"
        if kind == 30:
            return f"({one()} if {self.any(depth - 1)} else {one()})"
        if kind == 31:
            return f"{self.pick(*[repr(x) for x in FORMATS])} | format({self.any(depth - 1)})"
        if kind == 32:
            return f"{self.literal_string()} {self.literal_string()}"
        return self.pick(*STRING_VARIABLES)

    def any_string(self, depth):
        return self.string(depth) if self.chance(0.9) else self.any(depth)

    def integer(self, depth):
        if depth <= 0:
            return self.pick(str(self.random.randint(0, 12)), "100", "0x1F", "1_000", *INTEGER_VARIABLES)
        one = lambda: self.integer(depth - 1) if self.chance(0.9) else self.any(depth - 1)
        kind = self.random.randint(0, 18)
        if kind < 6:
            return f"{one()} {self.pick('+', '-', '*', '//', '%', '/')} {one()}"
        if kind == 6:
            return f"{self.pick('-', '+')}{self.postfix(depth)}"
        if kind == 7:
            return f"({one()}) ** {self.pick(0, 1, 2, 3)}"
        if kind < 11:
            return f"{self.operand(depth)} | {self.pick(*NUMBER_FILTERS)}"
        if kind == 11:
            method = self.pick("find", "rfind", "index", "count")
            return f"{self.postfix(depth)}.{method}({self.any_string(depth - 1)})"
        if kind == 12:
            return self.pick("1.5", "2.0", "1e3", "0.1", "1e16", "1e-5", "123456789.125", "1.0e22", "f", "g")
        if kind == 13:
            return f"{self.list(depth - 1)} | {self.pick('length', 'sum', 'min', 'max', 'first', 'last')}"
        return self.pick(*INTEGER_VARIABLES)

    def list(self, depth):
        if depth <= 0:
            return self.pick(
                *LIST_VARIABLES, "[1, 2, 3]", "[]", "('a', 'b')", "range(4)", "()", "(1,)", "[1, 2,]"
            )
        kind = self.random.randint(0, 24)
        items = lambda: ", ".join(self.any(depth - 1) for _ in range(self.random.randint(0, 3)))
        if kind < 3:
            return f"[{items()}]"
        if kind == 3:
            return f"({self.any(depth - 1)}, {self.any(depth - 1)})"
        if kind == 4:
            return f"{self.list(depth - 1)} + {self.list(depth - 1)}"
        if kind == 5:
            return f"{self.postfix_list(depth)}[{self.slice(depth)}]"
        if kind == 6:
            return f"range({self.pick(0, 3, 5)}, {self.pick(1, 7, 10)}, {self.pick(1, 2, 3, -1)})"
        if kind < 9:
            separator = self.literal_string()
            method = self.pick(
                "split()",
                "splitlines()",
                "splitlines(true)",
                "rsplit(none, 1)",
                "split(none, 1)",
                f"split({separator})",
                f"rsplit({separator}, 1)",
                f"split({separator}, {self.pick(0, 1, 2)})",
                f"partition({separator})",
                f"rpartition({separator})",
            )
            return f"{self.postfix(depth)}.{method}"
        if kind < 22:
            return (
                f"{self.pick(self.list(depth - 1), self.pick(*LIST_VARIABLES))} | {self.pick(*LIST_FILTERS)}"
            )
        if kind == 22:
            return f"{self.dict(depth - 1)}.{self.pick('items()', 'keys()', 'values()')} | list"
        return f"{self.dict(depth - 1)} | {self.pick(*DICT_FILTERS)}"

    def dict(self, depth):
        if depth <= 0 or self.chance(0.4):
            return self.pick(*DICT_VARIABLES, "{}", "{'a': 1, 'b': 2}", "dict(a=1, b='x')")
        key = lambda: self.pick("'k'", "'a'", "1", "true", "none", "1.0", "(1, 2)", self.string(0))
        return (
            "{" + ", ".join(f"{key()}: {self.any(depth - 1)}" for _ in range(self.random.randint(0, 3))) + "}"
        )

    def boolean(self, depth):
        if depth <= 0:
            return self.pick("true", "false", "yes", "no", "True", "None", "none")
        value = lambda: self.any(depth - 1)
        kind = self.random.randint(0, 14)
        if kind < 3:
            return f"{value()} {self.pick('==', '!=', '<', '>', '<=', '>=')} {value()}"
        if kind == 3:
            return f"{self.integer(0)} < {self.integer(0)} <= {self.integer(0)}"
        if kind == 4:
            container = self.pick(self.list(depth - 1), self.string(depth - 1), self.dict(0))
            return f"{value()} {self.pick('in', 'not in')} {container}"
        if kind == 5:
            return f"not {value()}"
        if kind == 6:
            return f"{value()} {self.pick('and', 'or')} {value()}"
        if kind < 12:
            test = self.pick(
                "defined",
                "undefined",
                "none",
                "string",
                "number",
                "integer",
                "float",
                "boolean",
                "mapping",
                "sequence",
                "iterable",
                "true",
                "false",
                "odd",
                "even",
                "upper",
                "lower",
                "callable",
                "escaped",
                f"divisibleby {self.pick(2, 3)}",
                f"eq {self.integer(0)}",
                f"in {self.list(0)}",
                f"equalto({value()})",
                f"gt {self.integer(0)}",
                f"lt({value()})",
                f"sameas {self.pick('true', 'none')}",
                "filter",
                "test",
                f"ne {self.literal_string()}",
                f"ge {self.integer(0)}",
            )
            return f"{self.operand(depth)} is {self.pick('', '', 'not ')}{test}"
        if kind == 12:
            affix = self.pick(self.any_string(depth - 1), self.list(0))
            return f"{self.postfix(depth)}.{self.pick('startswith', 'endswith')}({affix})"
        return f"{self.postfix(depth)}.{self.pick(*CHARACTER_TESTS)}()"

    def any(self, depth):
        kind = self.random.randint(0, 9)
        if kind < 3:
            return self.string(depth)
        if kind < 5:
            return self.integer(depth)
        if kind == 5:
            return self.list(depth)
        if kind == 6:
            return self.dict(depth)
        if kind == 7:
            return self.boolean(depth)
        if kind == 8 and depth > 0:
            return self.pick(
                f"d.get({self.string(0)}, {self.any(0)})",
                f"d[{self.string(0)}]",
                f"deep.a.b.c[{self.integer(0)}]",
                f"({self.any(depth - 1)} if {self.boolean(depth - 1)})",
                f"({self.any(depth - 1)})",
                f"[{self.any(depth - 1)}, {self.any(0)}][{self.pick(0, 1, -1)}]",
                "d.items",
                "ms | first",
                f"d | attr('{self.pick('name', 'x', 'role')}') | default('none')",
                "loop.cycle(1, 2, 3)",
                "loop.changed(x)",
                f"xs.{self.pick('index', 'count')}({self.integer(0)})",
                "xs.append(1)",
            )
        return self.pick(*OTHER_VARIABLES)

    def operand(self, depth):
        value = self.any(depth - 1)
        return f"({value})" if " " in value else value

    def postfix(self, depth):
        return self.pick(*STRING_VARIABLES, self.literal_string(), f"({self.string(depth - 1)})")

    def postfix_list(self, depth):
        return self.pick(*LIST_VARIABLES, "[1, 2, 3, 4]", f"({self.list(depth - 1)})")

    def slice(self, depth):
        part = lambda: self.pick("", "", "1", "-1", "2", "-3", "0", "10", self.integer(0))
        return self.pick(f"{part()}:{part()}", f"{part()}:{part()}:{self.pick('', '1', '2', '-1', '-2')}")

    def tag(self, body):
        return "{%" + self.pick("", "", "-", "+") + f" {body} " + self.pick("", "", "-") + "%}"

    def output(self, depth):
        return "{{" + self.pick("", "", "-") + f" {self.any(depth)} " + self.pick("", "", "-") + "}}"

    def space(self):
        return self.pick("", "", "\n", " ", "\n  ", "text", "  \n", "\t", " é ", "\n\n", "x\n  ")

    def statement(self, depth):
        body = lambda: self.block(depth - 1)
        kind = self.random.randint(0, 21) if depth > 0 else self.random.randint(0, 3)
        value = lambda: self.any(self.random.randint(0, 2))
        if kind < 3:
            return self.output(self.random.randint(1, 3))
        if kind == 3:
            return self.pick("{# comment #}", "{#- c -#}", "{#+ a\nb #}")
        if kind < 7:
            middle = self.tag(f"elif {value()}") + body() if self.chance(0.3) else ""
            middle += self.tag("else") + body() if self.chance(0.4) else ""
            return self.tag(f"if {value()}") + body() + middle + self.tag("endif")
        if kind < 12:
            target, items = self.pick(
                ("x", self.list(1)),
                ("x", self.list(1)),
                ("x, y", "d.items()"),
                ("x, y", "nested"),
                ("x", "range(3)"),
                ("x", value()),
                ("x, y", "ms | groupby('role')"),
            )
            test = f" if {self.boolean(1)}" if self.chance(0.3) else ""
            self.loops += 1
            control = (
                self.tag(f"if {self.boolean(1)}")
                + self.tag(self.pick("break", "continue"))
                + self.tag("endif")
                if self.chance(0.2)
                else ""
            )
            otherwise = self.tag("else") + body() if self.chance(0.2) else ""
            inside = body() + control + body()
            self.loops -= 1
            return self.tag(f"for {target} in {items}{test}") + inside + otherwise + self.tag("endfor")
        if kind < 15:
            return self.tag(f"set {self.pick('x', 'y', 's', 'n', 'ns.k', 'ns.t', 'x, y')} = {value()}")
        if kind == 15:
            return (
                self.tag(f"set {self.pick('x', 'y', 's', 'x | upper', 'y | trim | length', 'ns.t')}")
                + body()
                + self.tag("endset")
            )
        if kind == 16:
            name = self.pick(
                "upper",
                "trim",
                "replace('a', 'b')",
                "indent(2)",
                "trim | upper",
                "default('z')",
                f"replace({value()}, 'q')",
            )
            return self.tag(f"filter {name}") + body() + self.tag("endfilter")
        if kind == 17:
            return self.tag(f"with {self.pick('x', 'y', 's')} = {value()}") + body() + self.tag("endwith")
        if kind == 18:
            macro = (
                self.tag(f"macro f(x, y={value()}, z='z')")
                + body()
                + self.pick("", "{{ caller() if caller }}", "{{ varargs }}{{ kwargs }}", "{{ z }}")
                + self.tag("endmacro")
            )
            call = self.pick(
                f"{{{{ f({value()}) }}}}",
                f"{{{{ f(1, {value()}) }}}}{{{{ f(y=2, x={value()}) }}}}",
                "{{ f(1, 2, 3, 4) }}",
                "{{ f(1, q=2) }}",
                "{{ f() }}",
                self.tag("call f(1)") + body() + self.tag("endcall"),
                "{{ f(*[1, 2]) }}",
                "{{ f(**{'x': 5, 'y': 6}) }}",
                "{{ f.name }}",
            )
            return macro + call
        if kind == 19:
            return self.tag("generation") + body() + self.tag("endgeneration")
        if kind == 20:
            return self.pick(
                "{% raw %}{{ raw }}{% endraw %}",
                "{%- raw -%} {% x %} {%- endraw +%}",
                self.tag("for x in nested recursive")
                + "{{ loop.depth }}{{ x if x is number else loop(x) }}"
                + self.tag("endfor"),
                "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.current }}{{ c.next() }}",
                "{% set j = joiner('; ') %}{{ j() }}1{{ j() }}2{{ j() }}",
                "{% print s, n %}",
                "{% for k in ss %}{{ loop.cycle('odd', 'even') }}{% endfor %}",
            )
        return (
            self.pick(
                f"{{{{ {value()} | nofilter }}}}",
                "{{ missing.attr.more }}",
                "{% endfor %}",
                "{{ 1 + }}",
                "{{ raise_exception('stop') }}",
                "{% if %}",
                "{{ 'open",
                "{{ (1 }}",
                "{% set 1 = 2 %}",
                "{{ x is nothing }}",
                "{% break %}",
                "{{ f( }}",
            )
            if self.chance(0.15)
            else self.output(2)
        )

    def block(self, depth):
        return (
            "".join(self.space() + self.statement(depth) for _ in range(self.random.randint(0, 2)))
            + self.space()
        )

    def template(self):
        head = self.pick(
            "{% set ns = namespace(k=1, t='t') %}",
            "{% set ns = namespace(k=1, t='t') %}",
            "{%- set ns = namespace(k=0) -%}\n",
        )
        if self.chance(0.5):
            return head + self.output(self.random.randint(1, 4))
        return (
            head
            + "".join(self.space() + self.statement(2) for _ in range(self.random.randint(1, 4)))
            + self.space()
        )


NUMBER_FILTERS = [
    "length", "count", "wordcount", "int", "int(5)", "abs", "float", "round", "round(1)", "sum", "max",
    "min", "int(base=16)", "round(1, 'floor')", "float(1.5)", "first", "last",
]
LIST_FILTERS = [
    "list", "sort", "sort(reverse=true)", "reverse | list", "unique | list", "map('upper') | list",
    "map(attribute='role') | list", "map('string') | list", "map(attribute='n', default=0) | list",
    "select | list", "reject | list", "select('odd') | list", "select('string') | list",
    "reject('none') | list", "selectattr('role', 'eq', 'user') | list", "selectattr('tags') | list",
    "rejectattr('role', 'in', ['user']) | list", "sort(attribute='role')", "sort(case_sensitive=true)",
    "batch(2) | list", "slice(2) | list", "batch(3, 'z') | list", "map('length') | list", "groupby('role')",
    "map('int') | list", "sort(attribute='n,role')", "unique(true) | list", "map('default', 'q') | list",
    "selectattr('n', 'gt', 1) | map(attribute='n') | list", "map('first') | list",
    "map(attribute='0') | list", "map('join', '-') | list", "slice(2, 0) | list",
]
DICT_FILTERS = ["items | list", "dictsort", "list", "dictsort(by='value')", "dictsort(reverse=true)"]
CHARACTER_TESTS = [
    "isdigit", "isalpha", "isalnum", "isspace", "isupper", "islower", "istitle", "isascii", "isidentifier",
    "isdecimal",
]
FORMATS = [
    "%s", "%d", "%r", "%5.2f|", "%-6s|", "%s %s", "%x", "%e", "%g", "%%", "%05d", "%+d", "%.3s", "%c",
    "%i%s",
]
BRACES = [
    "{}", "{} {}", "{0}{1}{0}", "{k}", "{:>8}|", "{0!r}", "{:<5}|{:^7}|", "{1:05d}", "{1:,}", "{:.2f}",
    "{{}}", "{0[0]}", "{1:+x}", "{k:*^9}",
]
