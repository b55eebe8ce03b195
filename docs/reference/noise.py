#!/usr/bin/env python3
"""The noise contract a second time: reproduces docs/noise-vectors.json bit for bit, from docs/src/noise.md, without the library.

    python3 docs/reference/noise.py

Needs numpy. float32 operations of numpy are rounded to nearest, as the contract asks; only the fused multiply-add has to be made.
"""
import functools, json, pathlib, sys
import numpy as np

F, LOW = np.float32, 2**32 - 1

def philox(key, counter, stream):
    """Philox4x32-10 (Salmon et al. 2011): four arrays of words, for an array of counters."""
    counter, stream = np.asarray(counter, np.uint64), np.uint64(stream)
    x, k = [counter & LOW, counter >> 32, stream & LOW, stream >> 32], [key & LOW, key >> 32]
    for _ in range(10):
        p, q = x[0] * 0xD2511F53, x[2] * 0xCD9E8D57
        x = [q >> 32 ^ x[1] ^ k[0], q & LOW, p >> 32 ^ x[3] ^ k[1], p & LOW]
        k = [k[0] + 0x9E3779B9 & LOW, k[1] + 0xBB67AE85 & LOW]
    return [np.broadcast_to(word, counter.shape).astype(np.uint32) for word in x]

def fnv_1a(path):
    return functools.reduce(lambda key, byte: (key ^ byte) * 0x100000001B3 % 2**64, path.encode(), 0xCBF29CE484222325)

def derive_seed(run, step, index):
    words = philox(run, index, step)
    return int(words[0]) | int(words[1]) << 32

def draw(seed, path, indices, values, from_words):
    """A value for each index; a block gives `values` of them, which `from_words` makes of its words."""
    row, lane = np.divmod(np.asarray(indices, np.uint64), np.uint64(64))
    tile, k = np.divmod(row, np.uint64(values))
    return np.stack(from_words(philox(seed, tile * np.uint64(64) + lane, fnv_1a(path))))[k, np.arange(len(lane))]

def fma(a, b, c):
    """a b + c in float32, rounded once: the product is exact in float64, the sum is rounded to odd there."""
    p, c = np.float64(a) * np.float64(b), np.float64(c)
    s = np.asarray(p + c)
    back = s - p
    error = (p - (s - back)) + (c - back)
    away = np.where((error > 0) == (s > 0), 1, -1)
    odd = s.view(np.int64) + np.where((error != 0) & (s.view(np.int64) % 2 == 0), away, 0)
    return odd.view(np.float64).astype(F)

def polynomial(x, *coefficients):
    return functools.reduce(lambda y, coefficient: fma(y, x, F(coefficient)), coefficients[1:], F(coefficients[0]))

def gaussian(words):
    values = []
    for a, b in (words[:2], words[2:]):
        a = a >> np.uint32(1)
        v = np.where(a < 2**24, a, a & np.uint32(LOW - 0x7F)).astype(F) + F(0.5)
        bits = (v.view(np.uint32) - np.uint32(0x3F3504F3)).view(np.int32)
        f = ((bits & 0x7FFFFF) + 0x3F3504F3).view(F) - F(1)
        q = polynomial(f, 0.2021277, -0.32444725, 0.34501803, -0.3980039, 0.4993981, -0.66670114, 1.0000073, -1.9999999)
        r = np.sqrt(fma(f, q, ((bits >> 23) - 31).astype(F) * F(-2 * np.log(2))))
        t = fma(((b << np.uint32(2)).view(np.int32) >> 8).astype(F), F(2**-24), F(2**-25))
        tt = t * t
        s = polynomial(tt, -0.0046016816, 0.07968004, -0.6459635, np.pi / 2) * t
        c = polynomial(tt, -0.020417286, 0.25360322, -1.2336977, 1.0) * np.where(b >> np.uint32(31), F(-1), F(1))
        swap = b >> np.uint32(30) & np.uint32(1)
        values += [r * np.where(swap, s, c), r * np.where(swap, c, s)]
    return values

def rademacher(words):
    return [np.where(word >> np.uint32(bit) & np.uint32(1), F(-1), F(1)) for word in words for bit in range(32)]
def halves(words):
    return [half for word in words for half in (word & np.uint32(0xFFFF), word >> np.uint32(16))]

def rounded(dtype, x, bits):
    digits, least, end = dict(bf16=(8, -126, 128), f16=(11, -14, 16))[dtype]
    if not np.isfinite(x):
        return x
    magnitude = abs(float(x))
    spacing = 2.0 ** (max(np.frexp(magnitude)[1] - 1 if magnitude else least, least) - digits + 1)
    below = magnitude // spacing * spacing
    up = (magnitude - below) / spacing * 65536 // 1 + bits >= 65536
    magnitude = below + spacing * up
    return np.copysign(F(np.inf if magnitude >= 2.0**end else magnitude), x)

def dot(a, b):
    """In eight interleaved sums; what is left over is a ninth."""
    products, whole = a * b, len(a) // 8 * 8
    in_order = lambda terms: functools.reduce(lambda total, term: total + term, terms, 0.0)
    return in_order(in_order(products[:whole].reshape(-1, 8)) + np.zeros(8)) + in_order(products[whole:])

def orthonormal(g):
    columns = []
    for column in g.T.copy():
        for _ in range(2):
            for q, along in [(q, dot(q, column)) for q in columns]:
                column = column - along * q
        columns.append(column * (1 / np.sqrt(dot(column, column))))
    return np.array(columns).T

def low_rank(kind, rank, basis, seed, path, shape):
    (m, n), normal = shape, lambda seed, rows, columns: draw(seed, path, range(rows * columns), 4, gaussian).reshape(rows, columns)
    g, left = np.float64(normal(basis, n + m, rank)), normal(seed, m if kind == "lozo" else rank, rank)
    if kind == "lozo":
        right = (g[:n] * (1 / np.sqrt(rank))).T.astype(F)
    else:
        u, right = orthonormal(g[n:]).astype(F), (orthonormal(g[:n]) * (np.sqrt(m * n) / rank)).T.astype(F)
        left = functools.reduce(lambda total, l: total + u[:, l, None] * left[l], range(rank), F(0))
    return functools.reduce(lambda total, k: fma(left[:, k, None], right[k], total), range(rank), np.zeros(shape, F))

def main(path):
    vectors, number, compared = json.loads(path.read_text()), lambda text: int(text, 16), 0
    floats = lambda values: [f"0x{word:08x}" for word in np.asarray(values, F).ravel().view(np.uint32)]
    def at(case, values, from_words, count):
        first = number(case["first"])
        return draw(number(case["seed"]), case["path"], range(first, first + count), values, from_words)
    checks = dict(
        keys=lambda c: (c["key"], f"0x{fnv_1a(c['path']):016x}"),
        philox=lambda c: (c["words"], [f"0x{int(word):08x}" for word in philox(*(number(c[name]) for name in ("key", "counter", "stream")))]),
        seeds=lambda c: ((number(c["seed"]), c["uniform"]),
                         (seed := derive_seed(number(c["run"]), c["step"], number(c["index"])), (seed >> 11) * 2.0**-53)),
        gaussian=lambda c: (c["bits"], floats(at(c, 4, gaussian, 8))),
        rademacher=lambda c: (c["bits"], floats(at(c, 128, rademacher, 8))),
        masks=lambda c: (c["moves"], [int(word < max(1, round(c["probability"] * 2**32))) for word in at(c, 4, list, 48)]),
        rounding_bits=lambda c: (c["bits"], at(c, 8, halves, 8).tolist()),
        rounded=lambda c: (c["result"], floats([rounded(c["dtype"], np.uint32(number(c["x"])).view(F), c["bits"])])[0]),
        low_rank=lambda c: (c["bits"], floats(low_rank(c["kind"], c["rank"], number(c["basis"]), number(c["seed"]), c["path"], c["shape"]))))
    if set(vectors) != {"version", *checks}:
        sys.exit(f"{path} has other sections: {sorted(vectors)}")
    for section, check in checks.items():
        for case in vectors[section]:
            published, computed = check(case)
            if published != computed:
                sys.exit(f"{section}: {case} should have {computed}")
            compared += 1
    print(f"{compared} cases agree, bit for bit")

if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]) if sys.argv[1:] else pathlib.Path(__file__).parent.parent / "noise-vectors.json")
