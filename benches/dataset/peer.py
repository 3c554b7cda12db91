"""The same policy dataset from the tape's export, as a script for one run would make it.

Usage: peer.py DIR json|orjson, with DIR/tape.jsonl (`gametape tape export`) and
DIR/openings.json (system text and statement by task). Writes DIR/theirs.jsonl and prints one
JSON object: seconds, rows, and the peak of resident memory in bytes.

One pass; of steps only what a row needs is kept, and of attempts that are graded as
unresolved nothing.
"""
import json
import resource
import sys
import time

DIR = sys.argv[1]
STOP = "</function"

if sys.argv[2] == "orjson":
    import orjson

    loads, dumps = orjson.loads, orjson.dumps
else:
    loads = json.loads

    def dumps(row):
        return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode()


def build():
    tasks, unvalidated, attempts = {}, {}, {}
    with open(f"{DIR}/tape.jsonl", "rb") as lines:
        for line in lines:
            record = loads(line)
            kind, body = record["event"]["type"], record["event"]["body"]
            if kind == "StepTaken":
                attempt = attempts.get(body["attempt"])
                step = body["step"]
                if attempt is not None and step["index"] == len(attempt["steps"]):
                    call = step["call"]
                    attempt["steps"].append(
                        (step["completion"]["text"], step["observation"], call["tool"] if call else None)
                    )
                    attempt["events"].append(record["event_id"])
            elif kind == "TaskRegistered":
                unvalidated[body["task"]["id"]] = body["task"]
            elif kind == "TaskValidated":
                task = unvalidated.pop(body["task"], None)
                if task is not None:
                    tasks[body["task"]] = task
            elif kind == "AttemptScheduled":
                attempts.setdefault(
                    body["attempt"],
                    {
                        "task": body["key"]["task"],
                        "policy": body["key"]["policy"]["policy"],
                        "steps": [],
                        "events": [record["event_id"]],
                        "end": None,
                        "verdict": None,
                        "findings": [],
                    },
                )
            elif kind == "PatchSubmitted":
                attempt = attempts[body["end"]["attempt"]]
                attempt["end"] = body["end"]["reason"]
                attempt["events"].append(record["event_id"])
            elif kind == "Graded":
                attempt = attempts[body["attempt"]]
                attempt["verdict"] = body["verdict"]["outcome"]
                attempt["events"].append(record["event_id"])
                if attempt["verdict"] != "resolved":
                    attempt["steps"] = []
            elif kind == "ConductExamined":
                attempts[body["attempt"]]["findings"] = body["findings"]

    with open(f"{DIR}/openings.json", "rb") as file:
        openings = loads(file.read())
    by_task = {}
    for name, attempt in attempts.items():
        task = tasks.get(attempt["task"])
        if task is None or task["split"] == "held_out" or attempt["end"] is None:
            continue
        if attempt["verdict"] != "resolved" or len(attempt["steps"]) > 40:
            continue
        if attempt["findings"]:
            continue
        by_task.setdefault(attempt["task"], []).append((len(attempt["steps"]), name, attempt))

    rows, seen = [], set()
    candidates = []
    for name, found in by_task.items():
        system, user = openings[name]
        for steps, attempt, facts in found:
            messages = [
                {"role": "system", "content": system, "train": False},
                {"role": "user", "content": user, "train": False},
            ]
            for at, (text, observation, tool) in enumerate(facts["steps"]):
                if text.endswith(STOP):
                    text += ">"
                messages.append({"role": "assistant", "content": text, "train": True})
                if at + 1 < len(facts["steps"]):
                    if tool is not None:
                        observation = f"Result of {tool}:\n{observation}"
                    messages.append({"role": "user", "content": observation, "train": False})
            candidates.append((steps, attempt, name, facts, messages))
    # The first by turns, then by name, is kept of those that say the same.
    candidates.sort(key=lambda c: (c[0], c[1]))
    taken = {}
    for steps, attempt, name, facts, messages in candidates:
        says = tuple((m["role"], m["content"]) for m in messages)
        if says in seen:
            continue
        seen.add(says)
        if taken.get(name, 0) >= 2:
            continue
        taken[name] = taken.get(name, 0) + 1
        rows.append(
            {
                "attempt": attempt,
                "task": name,
                "repo": tasks[name]["repo"],
                "resolved": True,
                "off_policy": facts["policy"] != "model",
                "events": facts["events"],
                "messages": messages,
            }
        )
    rows.sort(key=lambda row: (row["task"], row["attempt"]))
    with open(f"{DIR}/theirs.jsonl", "wb") as out:
        for row in rows:
            out.write(dumps(row))
            out.write(b"\n")
    return len(rows)


begin = time.perf_counter()
count = build()
seconds = time.perf_counter() - begin
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"seconds": seconds, "rows": count, "passes": 1, "peak_bytes": peak}))
