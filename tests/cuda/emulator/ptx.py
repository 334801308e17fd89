"""What a PTX text holds (NVIDIA's "PTX ISA"): kernels with their parameters, registers, memory and statements."""

import re
from dataclasses import dataclass, field

C_TYPES = {
    **{f"{kind}{bits}": f"{'int' if kind == 's' else 'uint'}{bits}_t" for kind in "usb" for bits in (8, 16, 32, 64)},
    "f32": "float",
    "f64": "double",
    "pred": "bool",
}


def bits(type_name):
    return int(type_name[1:])


def arguments(text):
    """Splits at commas outside brackets."""
    found, depth, current = [], 0, ""
    for character in text:
        depth += {"{": 1, "[": 1, "(": 1, "}": -1, "]": -1, ")": -1}.get(character, 0)
        if character == "," and depth == 0:
            found.append(current.strip())
            current = ""
        else:
            current += character
    return found + [current.strip()] if current.strip() else found


@dataclass
class Space:
    """Variables of one block's or thread's memory, one behind the other."""

    offsets: dict = field(default_factory=dict)
    size: int = 0

    def place(self, name, alignment, size):
        start = -(-self.size // alignment) * alignment
        self.offsets[name] = start
        self.size = start + size


@dataclass
class Kernel:
    name: str
    parameters: list
    registers: dict  # name: type
    shared: Space
    local: Space
    dynamic_shared: set  # names of the memory whose size the launch says
    most_threads: int
    statements: list


def read(text, name):
    """The kernel of this name; None where the text has none."""
    text = re.sub(r"//[^\n]*", "", text)
    head = re.search(rf"\.entry\s+{re.escape(name)}\s*\(([^)]*)\)[^{{;]*\{{", text)
    if head is None:
        return None
    end, depth = head.end(), 1
    while depth:
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        end += 1
    body = text[head.end() : end - 1]
    used = set(re.findall(r"[\w$]+", body))
    shared, local, dynamic = Space(), Space(), set()
    for alignment, variable, size in _memory(text[: head.start()] + text[end:], "shared"):
        if size and variable in used:
            shared.place(variable, alignment, size)
        elif not size:
            dynamic.add(variable)
    for space, place in (("shared", shared), ("local", local)):
        for alignment, variable, size in _memory(body, space):
            place.place(variable, alignment, size)
    parameters = [parameter.split()[-1].split("[")[0] for parameter in arguments(head[1])]
    bound = re.search(r"\.maxntid (\d+)", head[0])
    most = int(bound[1]) if bound else 1024
    return Kernel(name, parameters, _registers(body), shared, local, dynamic, most, _statements(body))


def _memory(text, space):
    pattern = rf"\.{space}\s+\.align (\d+)\s+\.b8\s+([\w$]+)\[(\d*)\];"
    for alignment, variable, size in re.findall(pattern, text):
        yield int(alignment), variable, int(size or 0)


def _registers(body):
    found = {}
    for type_name, names in re.findall(r"\.reg\s+\.(\w+)\s+([^;]+);", body):
        for name in arguments(names):
            many = re.fullmatch(r"(%[\w$]+)<(\d+)>", name)
            for one in [f"{many[1]}{i}" for i in range(int(many[2]))] if many else [name]:
                found[one] = type_name
    return found


def _statements(body):
    body = re.sub(r"\.(reg|local|shared|param|pragma)\s[^;]*;", "", body)
    body = re.sub(r"^\s*[{}]\s*$", "", body, flags=re.M)  # scopes of calls and of inline PTX; vectors stay
    body = re.sub(r"^\s*\{(?=\s*[a-z])|;\s*\}", lambda brace: ";" * (";" in brace[0]), body, flags=re.M)
    body = re.sub(r"([$\w]+):", r"\1:;", body)
    statements = (" ".join(statement.split()) for statement in body.split(";"))
    return [statement for statement in statements if statement]
