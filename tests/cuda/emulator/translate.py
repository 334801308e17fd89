"""Translates one PTX kernel to C++ that thread.h's scheduler runs: a function that goes on where its thread was
suspended, and stops at the next barrier or shuffle.

usage: translate.py FOLDER KERNEL, where FOLDER has *.ptx; what our kernels and candle's need is translated, anything
else is an error that names the statement."""

import pathlib
import re
import sys

import ptx
from ptx import C_TYPES, bits

SPECIAL = {f"%{name}.{axis}": f"C.{name}.{axis}" for name in ("tid", "ntid", "ctaid", "nctaid") for axis in "xyz"}
OPERATORS = {"add": "+", "sub": "-", "mul": "*", "div": "/", "and": "&", "or": "|", "xor": "^"}
LOGICAL = {"and": "&&", "or": "||", "xor": "!="}
COMPARISONS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
# `ltu` and the like hold for NaN too: the opposite comparison fails for it.
OPPOSITE = {"lt": ">=", "le": ">", "gt": "<=", "ge": "<"}
FUNCTIONS = {"sqrt": "std::sqrt({})", "rcp": "1 / {}", "ex2": "std::exp2({})", "abs": "std::fabs({})", "neg": "-{}"}
INTEGER_FUNCTIONS = {"div": "divide", "rem": "remainder_of", "min": "std::min", "max": "std::max"}


class Translation:
    def __init__(self, kernel):
        self.kernel, self.suspended, self.lines = kernel, 0, []
        for statement in kernel.statements:
            label = re.fullmatch(r"([$\w]+):", statement)
            self.lines.append(f"{self.label(label[1])}:;" if label else self.statement(statement))

    # Operands

    @staticmethod
    def label(name):
        return "L" + name.replace("$", "_")

    @staticmethod
    def variable(register):
        return "R." + register[1:]

    def read(self, operand, type_name):
        """An operand as a value of this type."""
        c_type = C_TYPES[type_name]
        held = self.kernel.registers.get(operand)
        if held:
            variable = self.variable(operand)
            if held == type_name:
                return variable
            if held[0] == "f" or type_name[0] == "f":
                return f"bits<{c_type}>({variable})"
            return f"({c_type}){variable}"
        if operand in SPECIAL:
            return f"({c_type}){SPECIAL[operand]}"
        if pattern := re.fullmatch(r"0[fFdD]([0-9a-fA-F]+)", operand):
            return f"bits<{c_type}>((uint{4 * len(pattern[1])}_t)0x{pattern[1]}ull)"
        if re.fullmatch(r"-?\d+", operand):
            return f"({c_type}){operand}ll"
        return f"({c_type}){self.symbol(operand)}"

    def symbol(self, name):
        kernel = self.kernel
        for space in (kernel.shared, kernel.local):
            if name in space.offsets:
                return f"{space.offsets[name]}ull"
        if name in kernel.dynamic_shared:
            return "C.dynamic"
        if name in kernel.parameters:
            return f"(uint64_t)P[{kernel.parameters.index(name)}]"
        if name.startswith(("$str", "__unnamed_")):
            return "0ull"  # words of an assertion
        raise ValueError(f"`{name}` is unknown")

    def write(self, register, type_name, value):
        held = self.kernel.registers[register]
        if held == type_name or "pred" in (held, type_name):
            value = f"({value})"
        elif held[0] == "f" or type_name[0] == "f":
            value = f"bits<{C_TYPES[held]}>(({C_TYPES[type_name]})({value}))"
        else:
            value = f"({C_TYPES[held]})({C_TYPES[type_name]})({value})"
        return f"{self.variable(register)} = {value};"

    def address(self, modifiers, operand, size):
        """Where `[base+offset]` is in this process; checked but for parameters and a thread's own memory."""
        base, _, offset = operand[1:-1].partition("+")
        base = self.read(base, "u64")
        at = f"{base} + ({offset or 0}ll)"
        if "shared" in modifiers:
            return f"C.in_shared({at}, {size})"
        if "local" in modifiers:
            return f"C.local + ({at})"
        return f"(uint8_t*)({at})" if "param" in modifiers else f"C.in_global({at}, {size})"

    # Statements

    def statement(self, text):
        guard = re.match(r"@(!?)(%\w+) (.*)", text)
        operation, _, operands = (guard[3] if guard else text).partition(" ")
        name, *modifiers = operation.split(".")
        try:
            translate = getattr(self, f"op_{name}", None) or self.arithmetic
            code = translate(name, modifiers, ptx.arguments(operands))
        except (ValueError, KeyError, IndexError) as why:
            sys.exit(f"{self.kernel.name}: no translation of `{text}` ({why!r})")
        condition = f"if ({guard[1]}{self.variable(guard[2])}) " if guard else ""
        return f"{condition}{{ {code} }}"

    def suspend(self, reason):
        self.suspended += 1
        return f"R.resume = {self.suspended}; S = R; return {reason}; case {self.suspended}:;"

    def op_bra(self, _, __, operands):
        return f"goto {self.label(operands[0])};"

    def op_ret(self, *_):
        return "return DONE;"

    def op_bar(self, _, modifiers, operands):
        if modifiers != ["sync"] or operands != ["0"]:
            raise ValueError("only barriers of the whole block")
        return self.suspend("BARRIER")

    def op_call(self, _, __, operands):
        if "__assertfail" not in operands:
            raise ValueError("only failed assertions are called")
        return "C.fail(\"an assertion failed\");"

    def op_shfl(self, _, modifiers, operands):
        if "bfly" not in modifiers:
            raise ValueError("only the butterfly")
        names = ("value", "lane_mask", "clamp", "members")
        given = " ".join(f"X.{name} = {self.read(operand, 'u32')};" for name, operand in zip(names, operands[1:]))
        target, _, valid = operands[0].partition("|")
        taken = self.write(target, "u32", "X.value") + (self.write(valid, "pred", "true") if valid else "")
        return f"{given} X.place = {self.suspended + 1}; {self.suspend('SHUFFLE')} {taken}"

    def op_mov(self, _, modifiers, operands):
        type_name = modifiers[0]
        target, source = operands
        if target.startswith("{"):
            parts = ptx.arguments(target[1:-1])
            width = bits(type_name) // len(parts)
            whole = f"uint64_t v = {self.read(source, type_name)}; "
            return whole + " ".join(
                self.write(part, f"u{width}", f"(uint{width}_t)(v >> {i * width})") for i, part in enumerate(parts)
            )
        if source.startswith("{"):
            parts = ptx.arguments(source[1:-1])
            width = bits(type_name) // len(parts)
            placed = (f"((uint64_t){self.read(part, f'u{width}')} << {i * width})" for i, part in enumerate(parts))
            return self.write(target, type_name, " | ".join(placed))
        return self.write(target, type_name, self.read(source, type_name))

    def op_cvta(self, _, modifiers, operands):
        base = {"local": "(uint64_t)C.local", "shared": "(uint64_t)C.shared"}
        base = next((base[space] for space in base if space in modifiers), "0")
        value = self.read(operands[1], "u64")
        return self.write(operands[0], "u64", f"{value} {'-' if 'to' in modifiers else '+'} {base}")

    def op_ld(self, _, modifiers, operands):
        type_name, targets = modifiers[-1], ptx.arguments(operands[0].strip("{}"))
        size = bits(type_name) // 8
        code = f"auto p = {self.address(modifiers, operands[1], size * len(targets))}; {C_TYPES[type_name]} v; "
        for i, target in enumerate(targets):
            code += f"memcpy(&v, p + {i * size}, {size}); {self.write(target, type_name, 'v')} "
        return code

    def op_st(self, _, modifiers, operands):
        if "param" in modifiers:
            return ""  # of a failed assertion, whose words are not kept
        type_name, sources = modifiers[-1], ptx.arguments(operands[1].strip("{}"))
        size = bits(type_name) // 8
        code = f"auto p = {self.address(modifiers, operands[0], size * len(sources))}; {C_TYPES[type_name]} v; "
        for i, source in enumerate(sources):
            code += f"v = {self.read(source, type_name)}; memcpy(p + {i * size}, &v, {size}); "
        return code

    def op_setp(self, _, modifiers, operands):
        comparison, type_name = modifiers
        left, right = (self.read(operand, type_name) for operand in operands[1:])
        if comparison in ("nan", "num"):
            value = f"{'!' * (comparison == 'num')}(std::isnan({left}) || std::isnan({right}))"
        elif comparison.endswith("u") and comparison[:-1] in OPPOSITE:
            value = f"!({left} {OPPOSITE[comparison[:-1]]} {right})"
        elif comparison == "neu":
            value = f"{left} != {right}"
        elif comparison == "ne" and type_name[0] == "f":
            value = f"{left} < {right} || {left} > {right}"
        else:
            value = f"{left} {COMPARISONS[comparison]} {right}"
        return self.write(operands[0], "pred", value)

    def op_selp(self, _, modifiers, operands):
        left, right = (self.read(operand, modifiers[0]) for operand in operands[1:3])
        return self.write(operands[0], modifiers[0], f"{self.variable(operands[3])} ? {left} : {right}")

    def op_cvt(self, _, modifiers, operands):
        *how, target, source = modifiers
        value = self.read(operands[1], source)
        if how == ["rzi"] and target[0] != "f":
            value = f"to_integer<{C_TYPES[target]}>({value})"
        elif how == ["rzi"]:
            value = f"std::trunc({value})"
        elif how == ["sat"] and target[0] == source[0] == "f":
            value = f"saturate({value})"
        elif not set(how) <= {"rn"}:
            raise ValueError("its rounding")
        return self.write(operands[0], target, f"({C_TYPES[target]})({value})")

    def arithmetic(self, name, modifiers, operands):
        type_name = modifiers[-1]
        target, *operands = operands
        values = [self.read(operand, type_name) for operand in operands]
        if type_name == "pred":
            value = f"{values[0]} {LOGICAL[name]} {values[1]}"
        elif type_name[0] == "f":
            value = self.floating(name, modifiers, values)
        elif name == "mul" and modifiers[0] == "wide":
            type_name = f"{type_name[0]}{2 * bits(type_name)}"
            value = " * ".join(f"({C_TYPES[type_name]}){value}" for value in values)
        else:
            value = self.integer(name, modifiers, operands, type_name, values)
        return self.write(target, type_name, value)

    @staticmethod
    def floating(name, modifiers, values):
        if name == "fma" and modifiers == ["rm", "f32"]:
            # Exact in f64, or nearly so.
            return f"round_down((double){values[0]} * {values[1]} + {values[2]})"
        if not set(modifiers[:-1]) <= {"rn", "approx", "ftz"}:
            raise ValueError("its rounding")
        if name == "fma":
            return f"std::fma({', '.join(values)})"
        if name == "max":
            return f"std::fmax({', '.join(values)})"
        if name == "copysign":
            return f"std::copysign({values[1]}, {values[0]})"
        if name in FUNCTIONS:
            return FUNCTIONS[name].format(*values)
        return f"{values[0]} {OPERATORS[name]} {values[1]}"

    def integer(self, name, modifiers, operands, type_name, values):
        if modifiers[:-1] != (["lo"] if name in ("mul", "mad") else []):
            raise ValueError("its modifiers")
        # Unsigned, since what overflows wraps.
        unsigned = [self.read(operand, f"u{bits(type_name)}") for operand in operands]
        if name == "mad":
            return f"{unsigned[0]} * {unsigned[1]} + {unsigned[2]}"
        if name in INTEGER_FUNCTIONS:
            return f"{INTEGER_FUNCTIONS[name]}({', '.join(values)})"
        if name in ("shl", "shr"):
            return f"shift_{'left' if name == 'shl' else 'right'}({values[0]}, {self.read(operands[1], 'u32')})"
        if name in ("neg", "not"):
            return f"{'0 -' if name == 'neg' else '~'}{unsigned[0]}"
        return f"{unsigned[0]} {OPERATORS[name]} {unsigned[1]}"

    def __str__(self):
        kernel = self.kernel
        registers = " ".join(f"{C_TYPES[kind]} {name[1:]};" for name, kind in kernel.registers.items())
        lines = "\n".join(self.lines)
        return f"""#include "thread.h"
struct Registers {{ {registers} int resume; }};
extern "C" const Shape shape = {{ sizeof(Registers), {kernel.local.size}, {kernel.shared.size}, {kernel.most_threads} }};
extern "C" State step(Thread& C, void** P, void* state, Exchange& X) {{
(void)P; (void)X;
Registers& S = *(Registers*)state;
Registers R = S;
switch (R.resume) {{ case 0:;
{lines}
}}
return DONE;
}}
"""


def main():
    folder, name = sys.argv[1:]
    for path in sorted(pathlib.Path(folder).glob("*.ptx")):
        kernel = ptx.read(path.read_text(), name)
        if kernel:
            return print(Translation(kernel))
    sys.exit(f"no PTX in {folder} has a kernel {name}")


main()
