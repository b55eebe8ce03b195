#!/usr/bin/env python3
"""Golden trajectories: 30 steps of every method on a toy model, from the definitions in docs/src, without any of the library's code.

    python3 tools/reference/trajectories.py --out crates/zo-optim/tests/golden

The weights of the model are one flat vector, and so are a noise vector z, a mask and a change of the weights.
"""
import argparse, functools, json, pathlib
import numpy as np

STEPS, LAYERS = 30, 10
# Module paths and sizes in the order of traversal. `zero` begins at 0, as a LoRA factor does, and `norm` at 1.
PARTS = [("attention", 6), ("mlp", 4), ("norm", 2), ("zero", 4)]
MATRICES = dict(embed=(6, 45), attention=(2, 3), zero=(2, 2))  # the shapes of those that are not vectors
TENSORS = [("embed", 270), *((f"layers.{layer}.{name}", size) for layer in range(LAYERS) for name, size in PARTS), ("head", 10)]
OWNER = np.repeat(np.arange(len(TENSORS)), [size for _, size in TENSORS])  # the tensor of each weight, its path, its layer or -1
PATH = np.array([path for path, _ in TENSORS])[OWNER]
LAYER = np.array([int(path.split(".")[1]) if "layers" in path else -1 for path in PATH])
I = np.arange(len(OWNER))
CENTRE, CURVATURE, COUPLING = (53 * I % 97 - 48) / 97, 0.2 + 1.8 * (29 * I % 17) / 16, (31 * I % 89 - 44) / 440

def named(*texts):
    return np.array([any(text in path for text in texts) for path in PATH])
def loss(theta):
    x = theta - CENTRE
    return np.sum(CURVATURE * (np.sqrt(1 + x * x) - 1)) + np.sin(COUPLING @ x)
def gradient(theta):
    x = theta - CENTRE
    return CURVATURE * x / np.sqrt(1 + x * x) + COUPLING * np.cos(COUPLING @ x)

# ---- noise.md

def philox(key, counter, stream):
    """Philox4x32-10 (Salmon et al. 2011): four words for each 64-bit `counter`, the upper half of the block's number being `stream`."""
    counter, low = np.asarray(counter, np.uint64), 2**32 - 1
    x, k = [counter & low, counter >> 32, np.uint64(stream & low), np.uint64(stream >> 32)], [key & low, key >> 32]
    for _ in range(10):
        p, q = x[0] * 0xD2511F53, x[2] * 0xCD9E8D57
        x = [q >> 32 ^ x[1] ^ k[0], q & low, p >> 32 ^ x[3] ^ k[1], p & low]
        k = [k[0] + 0x9E3779B9 & low, k[1] + 0xBB67AE85 & low]
    return x

def fnv1a(path):
    return functools.reduce(lambda key, byte: (key ^ byte) * 0x100000001B3 % 2**64, path.encode(), 0xCBF29CE484222325)

def draw(seed, values, from_words, tensors=TENSORS):
    """One number for each weight; a block gives `values` of them, which `from_words` makes of its words."""
    parts = []
    for path, size in tensors:
        row, lane = np.divmod(np.arange(size), 64)
        tile, k = np.divmod(row, values)
        parts.append(np.stack(from_words(philox(seed, 64 * tile + lane, fnv1a(path))))[k, np.arange(size)])
    return np.concatenate(parts)

def gaussian(words):
    values = []
    for a, b in (words[:2], words[2:]):
        a = a >> 1
        u = (np.where(a < 2**24, a, a // 128 * 128) + 0.5) / 2**31
        t = (((b & 2**30 - 1) // 64 + 2**23) % 2**24 - 2.0**23 + 0.5) / 2**24 * np.pi / 2
        cos, sin, swap = np.cos(t) * np.where(b >> 31, -1, 1), np.sin(t), b >> 30 & 1
        values += [np.sqrt(-2 * np.log(u)) * np.where(swap, *pair) for pair in ((sin, cos), (cos, sin))]
    return values

def rademacher(words):
    return [1 - 2.0 * (word >> bit & 1) for word in words for bit in range(32)]
def halves(words):
    return [half for word in words for half in (word & 0xFFFF, word >> 16)]

class Seeds:
    def __init__(self, run, step, first):
        self.run, self.step, self.next = run, step, first
    def draw(self):
        words, self.next = philox(self.run, self.next, self.step), self.next + 1
        return int(words[0]) | int(words[1]) << 32
    def uniform(self):
        return (self.draw() >> 11) * 2.0**-53

# ---- how-it-works.md: the weights and the step

def rounded(x, bits):
    """To f32; with 16 bits for each weight, or "nearest", on to bf16."""
    x = np.asarray(x).astype(np.float32)
    raw = x.view(np.uint32)
    bits = 0x7FFF + (raw >> 16 & 1) if isinstance(bits, str) else bits
    return x if bits is None else (raw + bits & 0xFFFF0000).astype(np.uint32).view(np.float32)

class Run:
    def __init__(self, settings):
        self.s = argparse.Namespace(**DEFAULTS | settings)
        self.to, self.top = "nearest" if self.s.dtype == "bf16" else None, named(*self.s.top)
        self.trains = named(*self.s.trainable) & ~self.top
        groups = self.s.weight_decay_groups + [("", self.s.weight_decay)]
        self.decay = np.array([next(decay for text, decay in groups if text in path) for path in PATH])
        theta = np.select([named("norm"), named("zero")], [1.0, 0.0], ((37 * I + 37) % 449 - 223.3) / 227)
        self.w, self.at, self.state, self.projected = rounded(theta, self.to), 0.0, {}, []
    def theta(self):
        return rounded(self.w - self.at, self.to)
    def gradient(self):
        return self.s.scale * gradient(self.theta().astype(float))
    def loss_at(self, displacement):
        """A pass goes through theta, and rounds there and where it ends."""
        self.w, self.at = rounded(self.theta() + displacement, self.to), displacement
        return self.s.scale * loss(self.w.astype(float))
    def loss_along(self, z):
        return self.loss_at(self.s.epsilon * self.moves * z)
    def measure(self, z):
        if self.s.difference == "exact":
            return self.gradient() @ (self.moves * z)
        if self.s.difference == "one-sided":
            self.here = self.loss_at(0 * z) if self.here is None else self.here
            return (self.loss_along(z) - self.here) / self.s.epsilon
        return (self.loss_along(z) - self.loss_along(-z)) / (2 * self.s.epsilon)
    def update(self, chosen, change):
        theta, seed = self.theta(), Seeds(self.s.seed, self.step, 2**33 + self.updates).draw()
        bits = draw(seed, 8, halves) if self.s.rounding == "stochastic" else self.to
        self.w, self.at = np.where(chosen, rounded((1 - self.s.lr * self.decay) * theta + change, bits), theta), 0.0
        self.updates, self.estimates, self.here = self.updates + 1, [], None
    def one_step(self, step):
        self.step, self.updates, self.estimates, self.here, took_part = step, 0, [], None, False
        self.seeds, self.mask_seeds, self.observe = Seeds(self.s.seed, step, 0), Seeds(self.s.seed, step, 2**32), lambda: None
        h, rounds = self.gradient(), 1 if self.s.order == "cyclic" else LAYERS + 1
        for self.round in range(rounds):
            # The tensors that take part, the elements of them that move, the factor on their update.
            chosen, moves, factor = self.s.mask(self)
            took_part, self.moves, self.measured = took_part | chosen & self.trains, chosen & moves & self.trains, []
            for _ in range(self.s.queries):
                z = self.s.sampler(self)
                self.measured.append((self.measure(z), z))
            self.estimates += [(g, factor * self.moves * z / self.s.queries) for g, z in self.measured]
            self.projected += [g for g, _ in self.measured]
            if self.s.order == "all-at-once" or self.round + 1 == rounds:
                self.update(took_part, self.s.rule(self, self.s.lr))
                took_part = False
        self.observe()
        self.w = np.where(self.top, rounded(self.w - self.s.lr * self.s.top_rate * h, self.to), self.w)

# ---- methods/: samplers, a direction for each query

def fresh(run):
    values = {gaussian: 4, rademacher: 128}[run.s.distribution]
    return draw(run.seeds.draw(), values, run.s.distribution).astype(np.float32).astype(float)
def greedy(run):
    return min([fresh(run) for _ in range(run.s.candidates)], key=run.loss_along)
def gv(run):
    m, kept = run.s.candidates, run.state.get("kept", [])
    ranked = sorted(kept + [fresh(run) for _ in range(m - len(kept))], key=run.loss_along)
    run.state["kept"] = ranked[:1] if run.s.history else []
    low = int(run.s.alpha * m)
    v = sum(ranked[:low]) / low - sum(ranked[low:]) / (m - low)
    return v / np.sqrt(1 / low + 1 / (m - low)) if run.s.normalize else v

# ---- noise.md: low rank. Coordinates are the numbers of each tensor that a direction is made of, one after the other.

def normal(seed, path, rows, columns=1):
    return draw(seed, 4, gaussian, [(path, rows * columns)]).astype(np.float32).astype(float).reshape(rows, columns)
def q_factor(g):
    q, r = np.linalg.qr(g)
    return q * np.sign(np.diag(r))
def held(run):
    return Seeds(run.s.seed, run.step - run.step % run.s.interval, 3 * 2**32).draw()
def factors(run, basis, path, size):
    """U and R of a tensor, an identity in place of what is not there."""
    m, n = MATRICES.get(path.split(".")[-1], (size, 1))
    if min(m, n) <= run.s.rank:
        return np.eye(size), np.eye(1)
    g = normal(basis, path, m + n, run.s.rank)
    if run.s.sampler.__name__ == "lozo":
        return np.eye(m), g[:n].T / np.sqrt(run.s.rank)
    return q_factor(g[n:]), q_factor(g[:n]).T * np.sqrt(m * n) / run.s.rank
def expand(run, basis, coordinates):
    pairs = [factors(run, basis, path, size) for path, size in TENSORS]
    ends = np.cumsum([u.shape[1] * r.shape[0] for u, r in pairs])
    return np.concatenate([(u @ c.reshape(u.shape[1], -1) @ r).ravel() for (u, r), c in zip(pairs, np.split(coordinates, ends))])
def low_rank(run):
    basis, seed = held(run), run.seeds.draw()
    pairs = [(path, factors(run, basis, path, size)) for path, size in TENSORS]
    c = np.concatenate([normal(seed, path, u.shape[1] * r.shape[0]).ravel() for path, (u, r) in pairs])
    run.coordinates = getattr(run, "coordinates", []) + [c]
    return expand(run, basis, c)
def lozo(run):
    return low_rank(run)
def subzero(run):
    return low_rank(run)
def in_subspace(run):
    """The estimate's coordinates, and the basis they belong to."""
    total = sum(g * c for (g, _), c in zip(run.measured, run.coordinates)) / run.s.queries
    run.coordinates = []
    return held(run), total
def carried(run, old, new, n):
    parts, start = [], 0
    for path, size in TENSORS:
        (u, r), (v, q) = factors(run, old, path, size), factors(run, new, path, size)
        count = u.shape[1] * r.shape[0]
        c, start = n[start:start + count].reshape(u.shape[1], -1), start + count
        wide = r.shape[1] * (run.s.sampler.__name__ == "lozo") / run.s.rank if r.size > 1 else 1
        parts.append((v.T @ u @ c @ r @ q.T / (wide or np.sum(q[0] ** 2))).ravel())
    return np.concatenate(parts)
def subspace_momentum(run, lr):
    (basis, c), beta = in_subspace(run), run.s.beta
    old, before = run.state.get("m"), run.state.get("basis")
    kept = old if before in (None, basis) else carried(run, before, basis, old)
    m = c if old is None else beta * kept + (1 - beta) * c
    run.state["m"], run.state["basis"] = m, basis
    return -lr * expand(run, basis, m)
def subspace_adam(run, lr):
    (basis, c), b1, b2 = in_subspace(run), run.s.beta_1, run.s.beta_2
    low = np.concatenate([np.full(u.shape[1] * r.shape[0], r.size > 1) for u, r in (factors(run, basis, *t) for t in TENSORS)])
    m, v, t = run.state.get("moments", np.zeros((3, len(c)))) * ~(low & (run.state.get("basis") != basis))
    m, v, t = b1 * m + (1 - b1) * c, b2 * v + (1 - b2) * c * c, t + 1
    run.state["moments"], run.state["basis"] = np.stack([m, v, t]), basis
    return -lr * expand(run, basis, m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + run.s.adam_epsilon))

# ---- methods/: masks

def dense(run):
    return run.trains, True, 1.0
def in_layers(factors):
    factor = np.where(LAYER >= 0, np.asarray(factors, float)[LAYER], 1.0)
    return factor > 0, True, factor

def lezo(run):
    order, dropped = list(range(LAYERS)), int(run.s.drop * LAYERS)
    for place in range(dropped):
        other = place + int(run.mask_seeds.uniform() * (LAYERS - place))
        order[place], order[other] = order[other], order[place]
    return in_layers([layer not in order[:dropped] for layer in range(LAYERS)])

def adalezo(run):
    q, gamma = run.state.setdefault("q", np.zeros(LAYERS)), run.s.exploration
    x = np.exp((q / q.max() if q.max() > 0 else q) / run.s.temperature)
    p, draws = (1 - gamma) * x / x.sum() + gamma / LAYERS, max(1, int(run.s.share * LAYERS))
    hits = [np.searchsorted(np.cumsum(p), run.mask_seeds.uniform(), side="right") for _ in range(draws)]
    times = np.bincount(hits, minlength=LAYERS)
    def observe():
        run.state["q"] = np.where(times, 0.9 * q + 0.1 * np.mean([abs(g) for g, _ in run.measured]), q)
    run.observe = observe
    return in_layers(times * np.minimum(1 / (draws * p), run.s.clip or 4))

def curvzo(run):
    beta, numbers = run.s.rate, np.unique(OWNER[run.trains])
    n, size = len(numbers), run.state.setdefault("budget", run.s.budget)
    s = run.state.setdefault("s", np.ones(n))
    low, high = 0.0, 1 / np.sqrt(s.min())
    for _ in range(200):
        c = (low + high) / 2
        low, high = (c, high) if np.minimum(1, c * np.sqrt(s)).sum() < size * n else (low, c)
    pi = np.minimum(1, high * np.sqrt(s))
    enters, likeliest = np.array([run.mask_seeds.uniform() for _ in range(n)]) < pi, n - 1 - np.argmax(pi[::-1])
    enters[likeliest] |= not enters.any()
    pi[likeliest] += np.prod(1 - pi)
    def observe():
        for g, z in run.measured:
            mean = run.state["mean"] = (1 - beta) * run.state.get("mean", g * g) + beta * g * g
            energy = np.array([np.mean(z[OWNER == number] ** 2) for number in numbers])
            s[enters] = ((1 - beta) * s + beta * g * g / mean * energy)[enters]
        if (run.step + 1) % run.s.adapt_every == 0:
            support, entropy = np.sqrt(s).sum() ** 2 / s.sum() / n, -np.sum(s / s.sum() * np.log(s / s.sum())) / np.log(n)
            run.state["budget"] = np.clip(0.9 * size + 0.1 * (0.1 + 0.7 * (0.7 * support + 0.3 * (1 - entropy))), 0.1, 0.8)
    run.observe, factor = observe, np.zeros(len(TENSORS))
    factor[numbers] = enters * np.minimum(1 / pi, run.s.clip or np.inf)
    return factor[OWNER] > 0, True, factor[OWNER]

def blocks(run):
    turn = run.step % (LAYERS + 1) if run.s.order == "cyclic" else run.round
    return LAYER == (turn if turn < LAYERS else -1), True, 1.0

def sparse(run):
    kind, share, theta, small = run.s.kind, run.s.sparsity, run.theta(), run.s.kind == "small-weights"
    if kind == "random":
        return run.trains, draw(run.mask_seeds.draw(), 4, list) < max(1, round((1 - share) * 2**32)), 1.0
    def threshold(number):
        own = abs(theta[OWNER == number])
        values = np.sort(abs(theta[run.trains]) if kind == "global-magnitude" else own)
        rank = max(small, int((1 - share if small else share) * len(values) + 0.5))
        found = values[rank - 1] if rank else -1.0
        return (np.inf if small else -1.0) if own.max() == 0 or small and found == 0 else found
    if run.step == 0 or run.s.refresh and run.step % run.s.refresh == 0:
        run.state["threshold"] = np.array([threshold(number) for number in range(len(TENSORS))])[OWNER]
    return run.trains, (abs(theta) <= run.state["threshold"]) == small, 1.0

# ---- methods/: update rules, the change of the weights

def total(run):
    return sum(g * z for g, z in run.estimates)
def sgd(run, lr):
    return -lr * total(run)
def sign(run, lr):
    return -lr * sum(np.sign(g) * z for g, z in run.estimates)
def sign_elementwise(run, lr):
    return -lr * np.sign(total(run))
def conservative(run, lr):
    return min([0 * total(run), lr * total(run), -lr * total(run)], key=run.loss_at)
def moving(run, name, rate, x):
    run.state[name] = rate * run.state.get(name, 0) + x
    return run.state[name]
def momentum(run, lr):
    return -lr * moving(run, "m", run.s.beta, (1 - run.s.dampening) * total(run))
def adam(run, lr):
    b1, b2, t = run.s.beta_1, run.s.beta_2, run.step + 1
    m, v = moving(run, "m", b1, (1 - b1) * total(run)), moving(run, "v", b2, (1 - b2) * total(run) ** 2)
    return -lr * m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + run.s.adam_epsilon)
def window(run):
    """The last K estimates, newest first, with their age."""
    run.state["window"] = ([total(run)] + run.state.get("window", []))[: run.s.window]
    return list(enumerate(run.state["window"]))
def momentum_window(run, lr):
    return -lr * (1 - run.s.dampening) * sum(run.s.beta**age * g for age, g in window(run))
def adam_window(run, lr):
    past, b1, b2 = window(run), run.s.beta_1, run.s.beta_2
    m = sum(b1**age * g for age, g in past) / sum(b1**age for age, _ in past)
    v = sum(b2**age * g * g for age, g in past) / sum(b2**age for age, _ in past)
    return -lr * m / (np.sqrt(v) + run.s.adam_epsilon)

DEFAULTS = dict(
    lr=1e-3, epsilon=1e-2, seed=7, scale=1.0, queries=1, difference="central", distribution=gaussian, dtype="f32", rounding="nearest",
    trainable=[""], weight_decay=0.0, weight_decay_groups=[], sampler=fresh, mask=dense, rule=sgd, candidates=2, alpha=0.5,
    normalize=False, history=False, drop=0.75, share=0.2, exploration=0.1, temperature=0.6, clip=None, budget=0.4, adapt_every=20,
    rate=0.1, order="cyclic", kind="random", sparsity=0.8, refresh=0, beta=0.9, dampening=0.0, window=16, beta_1=0.9, beta_2=0.999,
    adam_epsilon=1e-8, top=[], top_rate=1.0, rank=1, interval=7)
# LARGE: projected gradients of about 100.
LARGE, DECAY = dict(scale=4.0, lr=2.5e-4), dict(weight_decay=3.0, weight_decay_groups=[("norm", 0.0), ("layers", 6.0)])
RUNS = dict(
    mezo={}, mezo_large=dict(queries=2, **LARGE), mezo_radius=dict(epsilon=1e-3, **DECAY), mezo_rademacher=dict(distribution=rademacher),
    mezo_one_sided=dict(difference="one-sided", queries=3), mezo_some_tensors=dict(trainable=["layers", "head"]),
    mezo_bf16=dict(dtype="bf16", rounding="stochastic", epsilon=5e-2, **DECAY), gv=dict(sampler=gv, **DECAY),
    gv_of_four=dict(sampler=gv, candidates=4), gv_of_five=dict(sampler=gv, candidates=5, normalize=True, queries=2),
    gv_history=dict(sampler=gv, history=True, **LARGE), greedy=dict(sampler=greedy, candidates=4, **DECAY), lezo=dict(mask=lezo, **DECAY),
    greedy_large=dict(sampler=greedy, queries=2, **LARGE), lezo_large=dict(mask=lezo, drop=0.5, queries=2, **LARGE),
    adalezo=dict(mask=adalezo, queries=2, **DECAY), adalezo_large=dict(mask=adalezo, share=0.4, clip=16.0, **LARGE),
    adalezo_greedily=dict(mask=adalezo, exploration=0.0, share=0.3), curvzo=dict(mask=curvzo, **DECAY),
    curvzo_clipped=dict(mask=curvzo, clip=3.0, queries=2, budget=0.2, adapt_every=7), momentum=dict(rule=momentum, lr=1e-4, **DECAY),
    curvzo_large=dict(mask=curvzo, rate=0.3, trainable=["layers"], **LARGE), adam=dict(rule=adam, lr=1e-2, **DECAY),
    momentum_bf16=dict(dtype="bf16", rule=momentum, lr=1e-3, epsilon=5e-2, **DECAY), adam_lezo=dict(rule=adam, mask=lezo, lr=1e-2),
    momentum_window=dict(rule=momentum_window, lr=2e-4, window=8, dampening=0.2, **DECAY),
    momentum_lezo=dict(rule=momentum, mask=lezo, lr=2e-4, drop=0.5), momentum_sparse=dict(rule=momentum, mask=sparse, lr=2e-4),
    momentum_window_lezo=dict(rule=momentum_window, mask=lezo, lr=2e-4, drop=0.5, queries=2), sign=dict(rule=sign, lr=1e-2, **DECAY),
    adam_large=dict(rule=adam, queries=2, scale=4.0, lr=1e-2), adam_window=dict(rule=adam_window, lr=1e-2, window=8, **DECAY),
    adam_window_lezo=dict(rule=adam_window, mask=lezo, lr=1e-2, beta_2=0.95, drop=0.5), block_wise=dict(mask=blocks, lr=1e-2, **DECAY),
    sign_elementwise=dict(rule=sign_elementwise, lr=1e-2, queries=2, **DECAY), conservative=dict(rule=conservative, lr=5e-3, **DECAY),
    conservative_one_sided=dict(rule=conservative, lr=4e-3, difference="one-sided"), sparse_random=dict(mask=sparse, **DECAY),
    forward_gradient=dict(difference="exact", queries=2, **LARGE), block_wise_all_at_once=dict(mask=blocks, order="all-at-once", **DECAY),
    block_wise_all_after=dict(mask=blocks, order="all-after", **DECAY), sparse_mezo=dict(mask=sparse, kind="small-weights", lr=2e-3),
    sparse_magnitude=dict(mask=sparse, kind="magnitude", refresh=7, **DECAY), hybrid=dict(top=["layers.9", "head"], top_rate=2.0),
    sparse_global=dict(mask=sparse, kind="global-magnitude", sparsity=0.3, refresh=10, **LARGE),
    sparse_mezo_refreshed=dict(mask=sparse, kind="small-weights", sparsity=0.5, refresh=7, difference="one-sided", **DECAY),
    lozo=dict(sampler=lozo, rank=2, **DECAY), lozo_of_rank_one=dict(sampler=lozo, queries=3, difference="one-sided", interval=1),
    subzero=dict(sampler=subzero, rank=3, queries=2, **DECAY), subzero_of_rank_one=dict(sampler=subzero, **LARGE),
    lozo_m=dict(sampler=lozo, rule=subspace_momentum, lr=2e-3, **DECAY), subzero_momentum=dict(sampler=subzero, rule=subspace_momentum),
    subzero_plus=dict(sampler=subzero, rule=subspace_adam, lr=1e-2, queries=5, difference="one-sided", beta_2=0.95, rank=2, **DECAY),
    lozo_adam=dict(sampler=lozo, rule=subspace_adam, lr=1e-2, queries=2, beta_2=0.95),
    everything=dict(sampler=gv, mask=lezo, rule=adam_window, distribution=rademacher, lr=1e-2, drop=0.5))

def trajectory(settings):
    run = Run(settings)
    for step in range(STEPS):
        run.one_step(step)
    said = {key: DEFAULTS[key] for key in ("lr", "epsilon", "seed", "scale", "queries")} | settings
    digits = lambda values: [float(f"{value:.7g}") for value in values]
    return {"settings": {key: getattr(value, "__name__", value) for key, value in said.items()},
            "projected_gradients": digits(run.projected), "weights": digits(run.theta())}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, required=True, help="the folder of the golden files")
    for name, settings in RUNS.items():
        (parser.parse_args().out / f"{name}.json").write_text(json.dumps(trajectory(settings), separators=(",", ":")) + "\n")
