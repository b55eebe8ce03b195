"""Compares the predictions of `opt_superglue` with those of transformers (and PEFT) on the same prompts.

    python3 predictions.py --model DIR [--adapter DIR] --task TASK --data DIR --predictions runs/x/predictions.json [--when after]

Tasks: sst2, boolq, rte, cb, copa from `dev.jsonl` or `val.jsonl`; squad from `dev-v1.1.json` (greedy answers of 50 tokens, to the end of
the line). As many rows as there are predictions. Needs torch and transformers, and peft for --adapter.
"""

import argparse
import json
import os

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def lines(folder):
    for name in ("dev.jsonl", "val.jsonl"):
        path = os.path.join(folder, name)
        if os.path.exists(path):
            return [json.loads(line) for line in open(path, encoding="utf-8") if line.strip()]
    raise SystemExit(f"{folder} holds neither dev.jsonl nor val.jsonl")


def lower_first(text):
    first, *rest = text.split(" ")
    return " ".join([first if first == "I" else first[:1].lower() + first[1:], *rest])


def example(task, row):
    if task == "sst2":
        return row["sentence"].strip() + " It was", [" terrible", " great"]
    if task == "boolq":
        question = row["question"].strip().rstrip("?")
        return f"{row['passage'].strip()} {question}?\n", ["No", "Yes"]
    if task == "copa":
        word = " because" if row["question"] == "cause" else " so"
        premise = row["premise"].strip().removesuffix(".")
        return premise + word, [" " + lower_first(row[choice].strip()) for choice in ("choice1", "choice2")]
    premise, hypothesis = row["premise"].strip(), row["hypothesis"].strip()
    if task == "rte":
        return f'{premise}\nDoes this mean that "{hypothesis}" is true? Yes or No?\n', ["Yes", "No"]
    return f'Suppose {premise} Can we infer that "{hypothesis}"? Yes, No, or Maybe?\n', ["Yes", "No", "Maybe"]


def questions(folder):
    data = json.load(open(os.path.join(folder, "dev-v1.1.json"), encoding="utf-8"))["data"]
    for article in data:
        for paragraph in article["paragraphs"]:
            for qa in paragraph["qas"]:
                yield (f"Title: {article['title']}\nContext: {paragraph['context']}\n"
                       f"Question: {qa['question']}\nAnswer:")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--adapter")
    parser.add_argument("--task", required=True, choices=["sst2", "boolq", "rte", "cb", "copa", "squad"])
    parser.add_argument("--data", required=True)
    parser.add_argument("--predictions", required=True)
    parser.add_argument("--when", default="before", choices=["before", "after"])
    args = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    if args.adapter:
        from peft import PeftModel
        model = PeftModel.from_pretrained(model, args.adapter).eval()
    found = json.load(open(args.predictions, encoding="utf-8"))[args.when]
    same, loss = 0, 0.0
    if args.task == "squad":
        for prompt, answer in zip(questions(args.data), found):
            ids = tokenizer(prompt, return_tensors="pt")
            with torch.no_grad():
                tokens = model.generate(**ids, max_new_tokens=50, do_sample=False, eos_token_id=None, pad_token_id=0)
            text = tokenizer.decode(tokens[0, ids.input_ids.shape[1]:], skip_special_tokens=True)
            same += text.split("\n")[0].strip() == answer
    else:
        for row, chosen in zip(lines(args.data), found):
            prompt, options = example(args.task, row)
            start, scores = len(tokenizer(prompt).input_ids), []
            for option in options:
                ids = tokenizer(prompt + option).input_ids
                with torch.no_grad():
                    log_probs = model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
                each = [log_probs[at - 1, ids[at]].item() for at in range(start, len(ids))]
                scores.append(sum(each) / len(each))
            same += scores.index(max(scores)) == chosen
            if args.task == "sst2":
                loss -= torch.tensor(scores).log_softmax(0)[row["label"]].item() / len(found)
    print(f"{args.task}: {same} of {len(found)} rows alike" + (f", loss {loss:.7f}" if loss else ""))


if __name__ == "__main__":
    main()
