#!/usr/bin/env python3
"""Replays a run of MeZO from its trajectory, without the library, and compares the weights with the hashes that the run recorded.

    zo train --steps 30 --out runs/a
    python3 docs/reference/replay.py runs/a/trajectory.zo crates/zo-cli/assets/tiny-opt/model.safetensors

For full tuning of an OPT in f32 with central differences: Gaussian or Rademacher noise, any number of queries, in place or on the fly. Needs numpy; the
noise is that of noise.py. docs/src/trajectory.md describes the file, docs/src/noise.md the noise, docs/src/how-it-works.md the moves.
"""
import hashlib, json, pathlib, struct, sys, zlib
import numpy as np
from noise import F, derive_seed, draw, fma, gaussian, rademacher

def records(data):
    """The header, and each record's kind and payload; checksums are those of all bytes before, earlier checksums left out."""
    assert data[:8] == b"zo-traj\n", "this is no trajectory"
    kind, start, at, crc, size = 0, 12, 12, zlib.crc32(data[:12]), struct.unpack_from("<I", data, 8)[0]
    while True:
        crc = zlib.crc32(data[start : at + size], crc)
        assert crc == struct.unpack_from("<I", data, at + size)[0], f"the record that begins at byte {start} is damaged"
        yield kind, data[at : at + size]
        start = at + size + 4
        if start == len(data):
            return
        kind, at, size = data[start], start + 5, int.from_bytes(data[start + 1 : start + 4], "little")

def base(path, model):
    """The weights as the run holds them: burn stores the matrix of a linear layer the other way round."""
    data, weights = pathlib.Path(path).read_bytes(), {}
    header = json.loads(data[8 : (first := 8 + struct.unpack_from("<Q", data)[0])])
    names = {name.removeprefix("model."): entry for name, entry in header.items()}
    for tensor in model:
        assert tensor["dtype"] == "F32", f"{tensor['path']} is {tensor['dtype']}"
        entry = names[tensor["path"].removeprefix("Opt.")]
        begin, end = entry["data_offsets"]
        stored = np.frombuffer(data[first + begin : first + end], dict(F32="<f4", F16="<f2")[entry["dtype"]]).astype(F).reshape(entry["shape"])
        linear = stored.ndim == 2 and ".embed_" not in tensor["path"]
        weights[tensor["path"]] = np.ascontiguousarray(stored.T if linear else stored).ravel()
    return weights

def digest(weights):
    whole = hashlib.sha256()
    for path, w in weights.items():
        pieces = [w.tobytes()[at : at + 262144] for at in range(0, w.nbytes, 262144)]
        whole.update(path.encode() + b"\0F32\0" + b"".join(hashlib.sha256(piece).digest() for piece in pieces))
    return whole.digest()

class Run:
    """Weights that stand at theta + sum from[seed] z(seed), and an update sum waiting[seed] z(seed) that has not been made."""
    def __init__(self, method, weights):
        self.noise = dict(gaussian=(4, gaussian), rademacher=(128, rademacher))[method["noise"]["name"]]
        self.epsilon, self.queries, self.seed = method["epsilon"], method["queries"], method["seed"]
        self.weights, self.displacement, self.waiting, self.step = weights, {}, {}, 0
        self.written = method["perturbation"] == "in-place"

    def move(self, target):
        """One pass: theta <- w - sum from z, w <- theta + sum to z, both rounded; sums are in the order of the seeds."""
        if target == self.displacement and not self.waiting:
            return
        to = {seed: target.get(seed, 0.0) + self.waiting.get(seed, 0.0) for seed in {*target, *self.waiting}}
        for path, w in self.weights.items():
            left, right = np.zeros(len(w), F), np.zeros(len(w), F)
            for seed in sorted({*self.displacement, *to}):
                z = draw(seed, path, range(len(w)), *self.noise)
                left, right = fma(F(self.displacement.get(seed, 0.0)), z, left), fma(F(to.get(seed, 0.0)), z, right)
            self.weights[path] = (w - left) + right
        self.displacement, self.waiting = dict(target), {}

    def take(self, lr, losses):
        """Algorithm 1 of MeZO, with answers in place of the model."""
        update = {}
        for query in range(self.queries):
            seed = derive_seed(self.seed, self.step, query)
            if self.written:
                self.move({seed: self.epsilon})
                self.move({seed: -self.epsilon})
            plus, minus = losses[2 * query : 2 * query + 2]
            update[seed] = -lr * (1 / self.queries * ((plus - minus) / (2 * self.epsilon)))
        self.waiting, self.step = update, self.step + 1
        if not self.written:
            self.move({})

def main(trajectory, checkpoint):
    file = records(pathlib.Path(trajectory).read_bytes())
    header = json.loads(next(file)[1])
    method, lr, compared, elsewhere = header["optimizer"]["method"], None, 0, 0
    parts = [method[part]["name"] for part in ("mask", "coefficients", "update")] + [method["difference"], method["weight_decay"], method["sampler"]]
    if parts != ["dense", "mean", "sgd", "central", 0.0, None] or not header["session"]:
        sys.exit(f"this program replays MeZO with central differences, not {parts}")
    run = Run(method, base(checkpoint, header["model"]))
    for kind, payload in file:
        if kind == 2:
            continue
        if payload[0] & 4:
            run.move({})
        if kind == 1:
            lr, at = (struct.unpack_from("<d", payload, 1)[0], 9) if payload[0] & 1 else (lr, 1)
            run.take(lr, np.frombuffer(payload[at:], "<f4" if payload[0] & 2 else "<f8").astype(float).tolist())
        elif run.displacement or run.waiting:
            elsewhere += 1
        elif digest(run.weights) == payload[1:33]:
            compared += 1
        else:
            sys.exit(f"after {run.step} steps the weights have another hash than the run's")
    print(f"{run.step} steps: {compared} hashes agree, {elsewhere} are of displaced weights and were not computed")

if __name__ == "__main__":
    main(*sys.argv[1:])
