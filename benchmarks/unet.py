"""Training steps of the image models against PyTorch, and convolution gradients inside loops against unrolled ones.

    python benchmarks/unet.py [--rounds 5]

Needs the extra ``bench`` (PyTorch) for the first part; without it the peer's numbers are null. Both sides run the same
architecture, batch and optimizer in this process, in alternating rounds; times are process CPU seconds of the best
round, so that other load on the machine matters little. One JSON line per case:

- ``ours_s``, ``peer_s``, ``ratio``: CPU time of a step of this package, of the peer, and the first over the second;
- ``lax_s``: the same as ``ours_s`` with ``lax``'s own convolution gradients in place of models/convolution.py;
- ``compile_s``: wall time of tracing and compiling ours.
"""

import argparse
import functools
import json
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from physml_jax.models import convolution, pix2pixhd, unet

BATCH = 16


def best_cpu_seconds(functions, rounds):
    """CPU seconds of one call of every function: the smallest mean of 0.3 seconds of calls over alternating rounds."""
    times = {name: [] for name in functions}
    for _ in range(rounds):
        for name, fn in functions.items():
            calls, start, wall = 0, time.process_time(), time.perf_counter()
            while calls == 0 or time.perf_counter() - wall < 0.3:
                fn()
                calls += 1
            times[name].append((time.process_time() - start) / calls)
    return {name: min(t) for name, t in times.items()}


def report(case, times, compile_s):
    ours, peer = times["ours"], times.get("peer")
    row = {"case": case, "ours_s": ours, "peer_s": peer, "ratio": ours / peer if peer else None}
    row |= {"lax_s": times.get("lax"), "compile_s": compile_s}
    print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}), flush=True)


def training_step(make_model, size):
    """A function that takes one Adam step on fixed data, and the seconds to compile it."""
    model, tx = make_model(), optax.adam(1e-4)
    rng = np.random.default_rng(0)
    x, y = (jnp.asarray(rng.normal(size=(BATCH, size, size, c)), jnp.float32) for c in (2, 1))
    params = jax.jit(functools.partial(model.init, train=False))(jax.random.key(0), x)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(carry):
        params, opt = carry
        grads = jax.grad(lambda p: jnp.mean((model.apply(p, x, train=True) - y) ** 2))(params)
        updates, opt = tx.update(grads, opt)
        return optax.apply_updates(params, updates), opt

    state = [(params, jax.jit(tx.init)(params))]
    start = time.perf_counter()
    compiled = step.lower(state[0]).compile()
    seconds = time.perf_counter() - start

    def run():
        state[0] = jax.block_until_ready(compiled(state[0]))

    run()
    return run, seconds


def with_lax(make):
    """``make()`` while the rule of models/convolution.py is switched off."""
    original = jax.default_backend
    jax.default_backend = lambda: "none"
    try:
        return make()
    finally:
        jax.default_backend = original


def loops(rounds):
    """Gradients through eight convolutions: a scan over layers and a map over images against the same unrolled."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(BATCH, 16, 16, 64)), jnp.float32)
    w = jnp.asarray(rng.normal(size=(8, 3, 3, 64, 64)) * 0.03, jnp.float32)
    images = x.reshape(8, BATCH // 8, 16, 16, 64)

    def layer(conv, h, w, stride=1):
        y = conv(h, w, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return jnp.tanh(y)

    def loss(conv, h, w, stride=1):
        return jnp.sum(layer(conv, h, w, stride) ** 2)

    def scan(conv, w):
        return jax.grad(lambda w: jnp.sum(lax.scan(lambda h, v: (layer(conv, h, v), None), x, w)[0] ** 2))(w)

    def scan_unrolled(conv, w):
        return jax.grad(lambda w: jnp.sum(functools.reduce(lambda h, v: layer(conv, h, v), list(w), x) ** 2))(w)

    def weights(conv, w):
        return jax.grad(lambda v: jnp.sum(lax.map(lambda h: loss(conv, h, v), images)))(w[0])

    def weights_unrolled(conv, w):
        return jax.grad(lambda v: sum(loss(conv, h, v) for h in images))(w[0])

    def inputs(conv, w):
        return lax.map(jax.grad(lambda h: loss(conv, h, w[0], 2)), images)

    def inputs_unrolled(conv, w):
        return [jax.grad(lambda h: loss(conv, h, w[0], 2))(h) for h in images]

    for case, loop, flat in [
        ("gradient in scan / unrolled", scan, scan_unrolled),
        ("weight gradient in lax.map / unrolled", weights, weights_unrolled),
        ("strided input gradient in lax.map / unrolled", inputs, inputs_unrolled),
    ]:
        compiled, seconds = {}, 0.0
        for name, fn, conv in [
            ("ours", loop, convolution.conv_general_dilated),
            ("peer", flat, convolution.conv_general_dilated),
            ("lax", loop, lax.conv_general_dilated),
        ]:
            start = time.perf_counter()
            compiled[name] = jax.jit(functools.partial(fn, conv)).lower(w).compile()
            seconds = time.perf_counter() - start if name == "ours" else seconds
            jax.block_until_ready(compiled[name](w))
        runs = {name: functools.partial(lambda f: jax.block_until_ready(f(w)), f) for name, f in compiled.items()}
        report(case, best_cpu_seconds(runs, rounds), seconds)


def torch_step(make_model, size):
    """The same step in PyTorch, channels first, or ``None`` where it is not installed."""
    try:
        import torch
    except ImportError:
        return None
    rng = np.random.default_rng(0)
    x, y = (torch.tensor(rng.normal(size=(BATCH, c, size, size)), dtype=torch.float32) for c in (2, 1))
    torch.set_num_threads(1)  # idle threads of its pool spin, which would count as work
    model = make_model(torch)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)

    def run():
        optimizer.zero_grad()
        ((model(x) - y) ** 2).mean().backward()
        optimizer.step()

    run()
    return run


def torch_unet(torch, base=24, limit=96, depth=4, num_blocks=2, patch=2):
    """models/unet.py with its defaults, layer by layer."""
    nn, F = torch.nn, torch.nn.functional
    widths = [min(base * 2**i, limit) for i in range(depth + 1)]

    def norm(h):
        return F.group_norm(h, h.shape[1] // 8)

    class Block(nn.Module):
        def __init__(self, c, f):
            super().__init__()
            self.film = nn.Linear(4 * base, 2 * f)
            self.conv1, self.conv2 = nn.Conv2d(c, f, 3, padding=1, bias=False), nn.Conv2d(f, f, 3, padding=1)
            self.shortcut = nn.Conv2d(c, f, 1, bias=False) if c != f else nn.Identity()

        def forward(self, h, context):
            scale, shift = self.film(context)[:, :, None, None].chunk(2, 1)
            y = self.conv1(F.silu(norm(h)))
            return self.shortcut(h) + self.conv2(F.silu(norm(y) * (1 + scale) + shift))

    class UNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.context, self.stem = nn.Linear(4, 4 * base), nn.Conv2d(2 * patch**2, base, 3, padding=1)
            self.down = nn.ModuleList(Block(f, f) for f in widths[:-1])
            self.halve = nn.ModuleList(nn.Conv2d(widths[i], widths[i + 1], 3, 2, 1) for i in range(depth))
            self.middle = nn.ModuleList(Block(widths[-1], widths[-1]) for _ in range(num_blocks))
            self.widen = nn.ModuleList(nn.Conv2d(widths[i + 1], widths[i], 1, bias=False) for i in range(depth))
            self.up = nn.ModuleList(Block(2 * f, f) for f in widths[:-1])
            self.head = nn.Conv2d(base, patch**2, 3, padding=1)

        def forward(self, x):
            statistics = torch.cat([x.mean((2, 3)), (x.var((2, 3), correction=0) + 1e-6).sqrt()], 1)
            context, h, skips = F.silu(self.context(statistics)), self.stem(F.pixel_unshuffle(x, patch)), []
            for block, halve in zip(self.down, self.halve, strict=True):
                skips.append(block(h, context))
                h = halve(skips[-1])
            for block in self.middle:
                h = block(h, context)
            for i in reversed(range(depth)):
                h = F.interpolate(self.widen[i](h), scale_factor=2)
                h = self.up[i](torch.cat([h, skips[i]], 1), context)
            return F.pixel_shuffle(self.head(F.silu(norm(h))), patch)

    return UNet()


def torch_pix2pixhd(torch, base=16, downs=3, num_blocks=4):
    """models/pix2pixhd.py, layer by layer."""
    nn = torch.nn
    norm = nn.InstanceNorm2d

    class Residual(nn.Module):
        def __init__(self, c):
            super().__init__()
            first, second = ([nn.ReflectionPad2d(1), nn.Conv2d(c, c, 3, bias=False), norm(c)] for _ in range(2))
            self.net = nn.Sequential(*first, nn.ReLU(), *second)

        def forward(self, x):
            return x + self.net(x)

    layers = [nn.ReflectionPad2d(3), nn.Conv2d(2, base, 7, bias=False), norm(base), nn.ReLU()]
    for i in range(downs):
        c = base * 2**i
        layers += [nn.Conv2d(c, 2 * c, 3, 2, 1, bias=False), norm(2 * c), nn.ReLU()]
    layers += [Residual(base * 2**downs) for _ in range(num_blocks)]
    for i in reversed(range(downs)):
        c = base * 2**i
        layers += [nn.ConvTranspose2d(2 * c, c, 3, 2, 1, 1, bias=False), norm(c), nn.ReLU()]
    return nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(base, 1, 7), nn.Tanh())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    hd = functools.partial(pix2pixhd.make_model, base_features=16, num_downsamples=3, num_blocks=4)
    fine = {"base": 16, "limit": 256, "depth": 5, "patch": 1}
    wide = functools.partial(unet.make_model, base_features=16, max_features=256, depth=5, patch=1)
    for case, make_model, peer, size in [
        ("unet, 64x64, batch 16", unet.make_model, torch_unet, 64),
        ("unet, 32x32, to 1x1, batch 16", unet.make_model, torch_unet, 32),
        ("unet with 256 channels, 32x32, to 1x1, batch 16", wide, functools.partial(torch_unet, **fine), 32),
        ("small pix2pixHD, 64x64, batch 16", hd, torch_pix2pixhd, 64),
        ("small pix2pixHD, 32x32, batch 16", hd, torch_pix2pixhd, 32),
    ]:
        ours, seconds = training_step(make_model, size)
        plain, _ = with_lax(functools.partial(training_step, make_model, size))
        runs = {"ours": ours, "lax": plain, "peer": torch_step(peer, size)}
        report(case, best_cpu_seconds({k: f for k, f in runs.items() if f}, rounds), seconds)
    loops(rounds)


if __name__ == "__main__":
    main()
