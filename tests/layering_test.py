"""The layering rule: a file includes only its own room and the rooms that CMakeLists.txt lists for it.

Also: the front wing reaches no device code, even through other rooms, and no file is a room of its own.
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
FRONT = {"http", "text", "kv", "sched", "api"}
BACK = {"device", "ops", "weights", "sample", "model", "engine", "dist"}


def declared_rooms():
    text = (ROOT / "CMakeLists.txt").read_text()
    rooms = {}
    for name, rest in re.findall(r"^fathom_room\((\w+)([^)]*)\)", text, re.M):
        listed = re.findall(r"ROOMS((?:\s+[a-z]+)+)", rest)
        rooms[name] = set(" ".join(listed).split())
    return rooms


def reachable(rooms, room):
    seen, todo = set(), [room]
    while todo:
        for other in rooms[todo.pop()] - seen:
            seen.add(other)
            todo.append(other)
    return seen


def main():
    rooms, problems, files = declared_rooms(), [], 0
    for room in sorted(p.name for p in (ROOT / "src").iterdir() if p.is_dir()):
        if room not in rooms:
            problems.append(f"src/{room}: no fathom_room({room} ...) in CMakeLists.txt")
    for room in sorted(FRONT & rooms.keys()):
        if crossed := reachable(rooms, room) & BACK:
            problems.append(f"{room} is in the front wing and reaches {sorted(crossed)}")
    for path in sorted((ROOT / "src").rglob("*")):
        if path.suffix not in (".h", ".cc", ".cu", ".cuh"):
            continue
        files += 1
        room = path.relative_to(ROOT / "src").parts[0]
        allowed = rooms.get(room, set()) | {room}
        for number, line in enumerate(path.read_text().splitlines(), 1):
            found = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
            if not found:
                continue
            target = found.group(1).split("/")[0]
            if "/" not in found.group(1):
                problems.append(f"{path.relative_to(ROOT)}:{number}: include by the path from src/: {line.strip()}")
            elif target not in allowed:
                problems.append(f"{path.relative_to(ROOT)}:{number}: {room} may not include {target}")
    print("\n".join(problems) if problems else f"layering: {files} files keep to {len(rooms)} rooms")
    return 1 if problems or files == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
