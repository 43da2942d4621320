"""The job of trace python-json: build rows, dump and load them as JSON, sort, index, extend."""
import json, random
random.seed(7)
words = ["alpha", "beta", "gamma", "delta", "order", "item", "price", "tags"]
rows = [{"id": i, "name": "%s-%d" % (random.choice(words), i), "price": random.random() * 100,
         "tags": [random.choice(words) for _ in range(random.randrange(6))],
         "nested": {"x": i, "y": [i, i + 1, None, True]}} for i in range(4000)]
for turn in range(3):
    text = json.dumps(rows, indent=turn or None)
    rows = json.loads(text)
    rows.sort(key=lambda r: r["price"])
    by_name = {r["name"]: r for r in rows}
    rows = [dict(r, seen=len(by_name)) for r in rows]
print(len(text))
