"""Random rows of all tasks for causal models: what a file holds, and the examples that MeZO's rule makes of it.

The prompts are written from docs/src/tasks.md, not from the Rust code that they check.
"""
import json

TASKS = ["sst2", "rte", "cb", "boolq", "wsc", "wic", "multirc", "copa", "record", "squad", "drop", "sst5", "snli", "mnli", "trec",
         "winogrande"]
GENERATION = {"squad", "drop"}
WORDS = {
    "sst2": [" terrible", " great"], "rte": ["Yes", "No"], "cb": ["Yes", "No", "Maybe"], "boolq": ["No", "Yes"],
    "wsc": ["No", "Yes"], "wic": ["No", "Yes"], "multirc": ["No", "Yes"], "sst5": [" terrible", " bad", " okay", " good", " great"],
    "snli": ["Yes", "Maybe", "No"], "mnli": ["Yes", "Maybe", "No"],
    "trec": [" description", " entity", " expression", " human", " location", " number"],
}
COMMON = (
    "the a of and to in it was is that for on with as I he she they you we film movie great terrible good bad Yes No Maybe "
    "Paris London river city team won lost game year 12 1999 3.5 $40 children because so when Anna Bob's doctor lawyer said "
    "had not very well-known plot actors music long short answer question passage people water red house"
).split()
ODD = ["naïve", "Zürich", "日本", "e\u0301", "…", "“quoted”", "don't", "U.S.A.", "x²", "😀", "co-op", "(see", "below)", "#1", "a/b", "İ"]


def words(rng, low, high, odd=0.1):
    """A sentence without a full stop, of `low` to `high` words."""
    chosen = [rng.choice(ODD if rng.random() < odd else COMMON) for _ in range(rng.randint(low, high))]
    text = ""
    for index, word in enumerate(chosen):
        text += ("  " if rng.random() < 0.02 else " ") * (index > 0) + word
        text += "," * (index + 1 < len(chosen) and rng.random() < 0.08)
    return text


def sentence(rng, low=3, high=9):
    text = words(rng, low, high)
    return (text[0].upper() + text[1:] if rng.random() < 0.8 else text) + rng.choice([".", ".", ".", "!", "?", ""])


def passage(rng, extra=()):
    parts = [sentence(rng) for _ in range(rng.randint(1, 2))]
    # Special and added tokens may occur in a text.
    if extra and rng.random() < 0.25:
        parts.append(rng.choice(extra))
    rng.shuffle(parts)
    return rng.choice([" ", " ", "\n"]).join(parts)


def flag(rng, label):
    """A label of two classes as files write it."""
    return rng.choice([label, label, bool(label), str(label)])


def choice(prompt, options, label, right=None):
    return {"prompt": prompt, "options": options, "label": label, "right": right or [label]}


def row(rng, task, extra=()):
    """One object of a file, and the examples in it."""
    label = rng.randrange(len(WORDS.get(task, "ab")))
    text = lambda: passage(rng, extra)
    options = WORDS.get(task)
    if task == "sst2":
        s = text().replace("\n", " ") + rng.choice(["", " ", "\x1f", "\xa0"])
        return {"sentence": s, "label": flag(rng, label)}, [choice(f"{s.strip()} It was", options, label)]
    if task in ("rte", "cb"):
        premise, hypothesis = text(), sentence(rng)
        names = ["entailment", "not_entailment"] if task == "rte" else ["entailment", "contradiction", "neutral"]
        keys = ("sentence1", "sentence2") if task == "rte" and rng.random() < 0.3 else ("premise", "hypothesis")
        fields = {keys[0]: premise, keys[1]: hypothesis, "idx": rng.randrange(999), "label": rng.choice([label, names[label]])}
        prompt = (f'{premise}\nDoes this mean that "{hypothesis}" is true? Yes or No?\n' if task == "rte"
                  else f'Suppose {premise} Can we infer that "{hypothesis}"? Yes, No, or Maybe?\n')
        return fields, [choice(prompt, options, label)]
    if task == "boolq":
        p, q = text(), words(rng, 3, 7) + rng.choice(["", "?", "??"])
        fields = {"passage": p, "question": q, rng.choice(["label", "answer"]): flag(rng, label)}
        q = q.strip().rstrip("?")
        return fields, [choice(f"{p.strip()} {q[:1].upper()}{q[1:]}?\n", options, label)]
    if task == "sst5":
        s, names = text(), ["very negative", "negative", "neutral", "positive", "very positive"]
        fields = {rng.choice(["text", "sentence"]): s, "label": rng.choice([label, str(label), names[label]])}
        return fields, [choice(f"{s.strip()} It was", options, label)]
    if task in ("snli", "mnli"):
        premise, hypothesis, names = text(), sentence(rng), ["entailment", "neutral", "contradiction"]
        keys = rng.choice([("premise", "hypothesis"), ("sentence1", "sentence2")])
        fields = {keys[0]: premise, keys[1]: hypothesis, rng.choice(["label", "gold_label"]): rng.choice([label, names[label]])}
        return fields, [choice(f'Suppose {premise} Can we infer that "{hypothesis}"? Yes, No, or Maybe?\n', options, label)]
    if task == "trec":
        q, hub = text(), [2, 1, 0, 3, 4, 5]
        fields = {"text": q} | rng.choice([{"label": label}, {"coarse_label": hub.index(label), "fine_label": 3}])
        return fields, [choice(f"{q.strip()} The answer is about a", options, label)]
    if task == "winogrande":
        before, after, names = words(rng, 2, 6) + rng.choice([" ", " ", " (", " “"]), words(rng, 0, 5), rng.sample(["Anna", "Bob", "the river"], 2)
        fields = {"sentence": f"{before}_ {after}.", "option1": names[0], "option2": names[1], "answer": rng.choice([label + 1, str(label + 1)])}
        # The space before the gap belongs to the options.
        prompt, space = before.rstrip(), before[len(before.rstrip()):]
        return fields, [choice(prompt, [f"{space}{name} {after}." for name in names], label)]
    if task == "wsc":
        t, noun, pronoun = text(), rng.choice(["Anna", "the lawyer", "Bob's house"]), rng.choice(["She", "it", "THEY", "İt"])
        spans = {"span1_text": noun, "span2_text": pronoun}
        fields = {"text": t, "target": spans, "label": flag(rng, label)} if rng.random() < 0.5 else {"text": t, **spans, "label": label}
        prompt = f'{t}\nIn the previous sentence, does the pronoun "{pronoun.lower()}" refer to {noun}? Yes or No?\n'
        return fields, [choice(prompt, options, label)]
    if task == "wic":
        w, one, two = rng.choice(["plot", "team", "water"]), sentence(rng), sentence(rng)
        prompt = f'Does the word "{w}" have the same meaning in these two sentences? Yes, No?\n{one}\n{two}\n'
        return {"word": w, "sentence1": one, "sentence2": two, "label": flag(rng, label)}, [choice(prompt, options, label)]
    if task == "multirc":
        p = text()
        make = lambda q, a, l: choice(f'{p}\nQuestion: {q}\nI found this answer "{a}". Is that correct? Yes or No?\n', options, l)
        if rng.random() < 0.5:
            q, a = sentence(rng), words(rng, 1, 4)
            return {"paragraph": p, "question": q, "answer": a, "label": flag(rng, label)}, [make(q, a, label)]
        asked = [(sentence(rng), [(words(rng, 1, 3), rng.randrange(2)) for _ in range(2)]) for _ in range(rng.randint(1, 2))]
        nested = [{"question": q, "answers": [{"text": a, "label": l} for a, l in answers]} for q, answers in asked]
        return {"passage": {"text": p, "questions": nested}, "idx": 3}, [make(q, a, l) for q, answers in asked for a, l in answers]
    if task == "copa":
        premise, kind = sentence(rng) + rng.choice(["", " "]), rng.choice(["cause", "effect"])
        choices = [sentence(rng), rng.choice(["I won.", "I'm red.", "İt was.", sentence(rng), sentence(rng)])]
        lower = lambda s: s if s.split(" ", 1)[0] == "I" else " ".join([s.split(" ")[0].lower(), *s.split(" ")[1:]])
        prompt = f"{premise.rstrip().removesuffix('.')} {'because' if kind == 'cause' else 'so'}"
        fields = {"premise": premise, "choice1": choices[0], "choice2": choices[1], "question": kind, "label": label}
        return fields, [choice(prompt, [" " + lower(c.strip()) for c in choices], label)]
    if task == "record":
        return record(rng, text)
    return written(rng, task, text)


def record(rng, text):
    names = rng.sample(["Anna", "Bob", "Paris", "Zürich", "the U.S.A.", "日本"], rng.randint(2, 4))
    body = " ".join(f"{name} {words(rng, 2, 4)}." for name in names)
    p = f"{text()} {body}" + f"\n@highlight\n{sentence(rng)}" * rng.randint(0, 2)
    query = f"{words(rng, 2, 4)} @placeholder {words(rng, 2, 4)}."
    if rng.random() < 0.15:
        query += " @placeholder"
    answers = rng.sample(names, rng.randint(1, min(2, len(names)))) + ["Rome"] * (rng.random() < 0.2)
    if rng.random() < 0.5:
        fields = {"passage": p, "query": query, "entities": names, "answers": answers}
        known = names
    else:
        spans = sorted((p.index(name), p.index(name) + len(name) - 1) for name in names)
        if rng.random() < 0.5:  # a name that occurs again
            spans.append(spans[0])
        known = [p[a:b + 1] for a, b in spans]
        fields = {"passage": {"text": p, "entities": [{"start": a, "end": b} for a, b in spans]},
                  "qas": [{"query": query, "answers": [{"text": a, "start": 0, "end": 0} for a in answers], "idx": 1}]}
    options = list(dict.fromkeys([*known, *answers]))
    right = [index for index, name in enumerate(options) if name in answers]
    prompt = p.replace("@highlight\n", "- ") + "\n-"
    return fields, [choice(prompt, [" " + query.replace("@placeholder", name) for name in options], right[0], right)]


def written(rng, task, text):
    p, q = text(), sentence(rng) + rng.choice(["", " ", " \x1c"])
    references = [rng.choice([words(rng, 1, 3), str(rng.randint(0, 99)), "Paris"]) for _ in range(rng.randint(1, 3))]
    unique = list(dict.fromkeys(references))
    if task == "squad":
        title = words(rng, 1, 3)
        answers = [{"text": r, "answer_start": 0} for r in references]
        question = {"id": "x", "question": q}
        if rng.random() < 0.5:
            fields = {"title": title, "context": p, **question, "answers": {"text": references, "answer_start": [0] * len(references)}}
        else:
            fields = {"title": title, "paragraphs": [{"context": p, "qas": [
                {**question, "answers": answers}, {"id": "y", "question": "None?", "answers": []}]}]}
        prompt = f"Title: {title}\nContext: {p}\nQuestion: {q.strip()}\nAnswer:"
        return fields, [{"prompt": prompt, "references": unique}]
    prompt = f"Passage: {p}\nQuestion: {q.strip()}\nAnswer:"
    if rng.random() < 0.5:
        fields = {"passage": p, "question": q, "answers_spans": {"spans": references, "types": ["span"] * len(references)}}
        return fields, [{"prompt": prompt, "references": unique}]
    number, date = "", {"day": "", "month": "", "year": ""}
    kind = rng.choice(["number", "date", "spans"])
    if kind == "number":
        number, spans, first = str(rng.randint(0, 99)), [], None
    elif kind == "date":
        date, spans, first = {"day": rng.choice(["", "4"]), "month": "May", "year": "1999"}, [], None
    else:
        spans, first = references, None
    expected = [number] if number else [" ".join(v for v in date.values() if v)] if date["year"] else []
    more = rng.choice([[], [{"number": "", "date": {}, "spans": ["Rome"]}]])
    pair = {"question": q, "answer": {"number": number, "date": date, "spans": spans}, "query_id": "z"}
    if more or rng.random() < 0.5:
        pair["validated_answers"] = more
    expected = list(dict.fromkeys(expected + spans + [span for answer in more for span in answer["spans"]]))
    return {"passage": p, "qa_pairs": [pair]}, [{"prompt": prompt, "references": expected}]


def write(rng, task, folder, rows_each, extra=()):
    """Writes train and dev files into `folder`; returns the examples of both."""
    folder.mkdir(parents=True)
    form = rng.choice(["jsonl", "jsonl", "json", "parquet"] + ["tsv"] * (task == "sst2"))
    found = []
    for split in ("train", "dev"):
        objects, examples = [], []
        while len(examples) < rows_each[split]:
            fields, made = row(rng, task, extra)
            # A column has one type in all rows; of DROP only the flat form does.
            if form == "parquet" and ("qa_pairs" in fields or objects and objects[0].keys() != fields.keys()):
                continue
            if rows_each[split] == 1 < len(made):  # the one of in-context learning
                continue
            objects.append(fields)
            examples += made
        put(rng, task, form, split, folder, objects)
        found.append(examples)
    return found


def put(rng, task, form, split, folder, objects):
    if form == "parquet":
        import pyarrow
        from pyarrow import parquet
        keys = ["label", "gold_label", *["answer"] * (task in ("boolq", "winogrande"))]
        key = next((key for key in keys if key in objects[0]), "label")
        labels = [o[key] for o in objects if key in o]
        if all(str(int(label) if isinstance(label, bool) else label).isdigit() for label in labels):
            labels = [int(label) for label in labels]
        else:
            labels = [str(label) for label in labels]
        table = pyarrow.Table.from_pylist([o | ({key: label} if key in o else {}) for o, label in zip(objects, labels or objects)])
        name = {"train": "train", "dev": "validation"}[split] + "-00000-of-00001.parquet"
        codec = rng.choice(["none", "snappy", "gzip", "zstd", "brotli", "lz4"])
        return parquet.write_table(table, folder / name, compression=codec, use_dictionary=rng.random() < 0.5)
    ascii_only = rng.random() < 0.5
    dump = lambda value: json.dumps(value, ensure_ascii=ascii_only)
    if form == "jsonl":
        content = "\n".join(map(dump, objects)) + rng.choice(["", "\n"])
    elif form == "json":
        content = dump(rng.choice([objects, {"version": "1", "data": objects}]))
    else:
        content = "sentence\tlabel\n" + "".join(f"{o['sentence']}\t{int(o['label'])}\n" for o in objects)
    (folder / f"{split}.{form}").write_bytes(content.encode())
