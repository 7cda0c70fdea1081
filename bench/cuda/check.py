"""Gatun's GPU kernels against plain PyTorch arithmetic: random data, odd shapes, poisoned outputs. Exit code 1 when one differs.

With the argument `small`: one shape and few rows a kind, what a checker of memory accesses gets through in a minute.
"""

import sys

import torch

from gatun import *

torch.manual_seed(1)
small = sys.argv[1:] == ["small"]
NF4_VALUES = [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
              -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
              0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0]
E2M1_VALUES = [0, .5, 1, 1.5, 2, 3, 4, 6, -0.0, -.5, -1, -1.5, -2, -3, -4, -6]
failures = 0


def report(what, ok, detail=""):
    global failures
    failures += not ok
    if not ok:
        print("FAILED", what, detail)


def unpack4(codes, n, k, high_first):
    flat = codes.flatten()
    low, high = flat & 15, flat >> 4
    both = torch.stack([high, low] if high_first else [low, high], 1).flatten()[: n * k]
    return both.reshape(n, k).long()


def cases():
    """(name, weight, exact value of each element as float64)"""
    for n, k in [(33, 1056)] if small else [(16, 64), (33, 192), (50, 4096), (129, 320), (257, 1024), (7, 40), (96, 1536), (70, 1056)]:
        codes4 = torch.randint(0, 256, (n * k // 2,), dtype=torch.uint8, device="cuda")
        codes8 = torch.randint(0, 256, (n, k), dtype=torch.uint8, device="cuda")
        for g in [32, k] if small else [16, 32, 64, 128, k]:
            if k % g:
                continue
            scale = (torch.rand(n, k // g, device="cuda") + 0.5) * 0.1
            per = lambda s: s.float().repeat_interleave(g, 1)
            c4 = unpack4(codes4, n, k, False)
            nf4 = torch.tensor(NF4_VALUES, device="cuda")
            e2m1 = torch.tensor(E2M1_VALUES, device="cuda")
            yield f"nf4 f32 g{g} {n}x{k}", Weight(n, k, NF4, codes4, scale, g, high_first=True), nf4[unpack4(codes4, n, k, True)] * per(scale)
            yield f"u4 f16 g{g} {n}x{k}", Weight(n, k, U4, codes4, scale.half(), g, zero_point=8), (c4 - 8).float() * per(scale.half())
            bf = scale.bfloat16()
            yield f"i4 bf16 g{g} {n}x{k}", Weight(n, k, I4, codes4, bf, g, arithmetic=BF16, result=BF16), (((c4 ^ 8) - 8).bfloat16() * bf.repeat_interleave(g, 1)).float()
            offset = torch.randn(n, k // g, device="cuda") * 0.1
            yield f"u4 offset g{g} {n}x{k}", Weight(n, k, U4, codes4, scale, g, offsets=offset), c4.float() * per(scale) + per(offset)
            e = scale.to(torch.float8_e4m3fn)
            yield f"e2m1 e4m3 g{g} {n}x{k}", Weight(n, k, E2M1, codes4, e, g), e2m1[c4] * per(e)
            yield f"i8 f32 g{g} {n}x{k}", Weight(n, k, I8, codes8, scale, g), codes8.view(torch.int8).float() * per(scale)
            f8 = torch.where((codes8 & 127) == 127, codes8 & 128, codes8)
            yield f"e4m3 f32 g{g} {n}x{k}", Weight(n, k, E4M3, f8, scale, g), f8.view(torch.float8_e4m3fn).float() * per(scale)
            f5 = torch.where((codes8 & 127) >= 124, codes8 & 131, codes8)
            yield f"e5m2 f32 g{g} {n}x{k}", Weight(n, k, E5M2, f5, scale, g), f5.view(torch.float8_e5m2).float() * per(scale)


for name, weight, exact in cases():
    n, k = exact.shape
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        got = weight.dequantize(dtype)
        report(f"dequantize {name} {dtype}", torch.equal(got, exact.to(dtype)), f"{(got.float() - exact).abs().max()}")
    weight.pack()
    for m in (1, 5, 11, 17, 130) if small else (1, 2, 5, 8, 9, 16, 17, 33, 64, 65, 130, 300):
        x = torch.randn(m, k, device="cuda")
        bias = torch.randn(n, device="cuda")
        for compute, bound in ((COMPUTE_F32, 1e-6 * k ** 0.5), (COMPUTE_BF16, 4e-3)):
            # BF16 rounds x: with offsets, sums over it may be much smaller than what is summed.
            rounded = x.bfloat16() if compute == COMPUTE_BF16 else x
            want = rounded.double() @ exact.double().t() + bias.double()
            y = torch.full((m, n), float("nan"), device="cuda")
            weight.linear(x, y, compute, weight.workspace(m, compute), bias)
            error = ((y.double() - want).norm() / want.norm()).item()
            report(f"linear {name} m={m} compute {compute}", error <= bound, f"error {error}")
        xb = x.bfloat16()
        y = torch.full((m, n), float("nan"), device="cuda", dtype=torch.bfloat16)
        weight.linear(xb, y, COMPUTE_BF16, weight.workspace(m, COMPUTE_BF16))
        want = xb.double() @ exact.double().t()
        error = ((y.double() - want).norm() / want.norm()).item()
        report(f"linear bf16 {name} m={m}", error <= 6e-3, f"error {error}")

def quantized(x, kind, block):
    """Codes as float64 and scales, of rows or runs of `block` columns."""
    most = 127.0 if kind == "i8" else 448.0
    runs = torch.nn.functional.pad(x.float(), (0, -x.shape[1] % block)).reshape(x.shape[0], -1, block)
    scale = runs.abs().amax(2, keepdim=True) / torch.full((), most, device="cuda")
    q = torch.where(scale > 0, runs / scale, 0.0)
    q = q.round() if kind == "i8" else q.to(torch.float8_e4m3fn).float()
    return q.double(), scale.double()


worst = {}
for n, k in [(130, 400)] if small else [(128, 256), (200, 4096), (130, 400), (320, 1104), (64, 128)]:
    codes = torch.randint(0, 256, (n, k), dtype=torch.uint8, device="cuda")
    e4m3 = torch.where((codes & 127) == 127, codes & 128, codes)
    rows = torch.rand(n, device="cuda") * 0.1 + 0.01
    one = torch.rand(1, device="cuda") * 0.1 + 0.01
    tiles = torch.rand((n + 127) // 128, (k + 127) // 128, device="cuda") * 0.1 + 0.01
    of_tiles = tiles.repeat_interleave(128, 0)[:n].repeat_interleave(128, 1)[:, :k]
    groups = torch.rand(n, (k + 31) // 32, device="cuda") * 0.1 + 0.01
    runs = torch.rand(n, (k + 127) // 128, device="cuda") * 0.1 + 0.01
    f8 = e4m3.view(torch.float8_e4m3fn).double()
    i8 = codes.view(torch.int8).double()
    four = torch.randint(0, 256, (n * k // 2,), dtype=torch.uint8, device="cuda")
    tensor = lambda encoding, data: Weight(n, k, encoding, data, one).blocks(n, k)
    weights = [
        ("f8 rows", COMPUTE_F8, Weight(n, k, E4M3, e4m3, rows), f8 * rows[:, None]),
        ("f8 tensor", COMPUTE_F8, tensor(E4M3, e4m3), f8 * one),
        ("f8 tiles", COMPUTE_F8_BLOCK, Weight(n, k, E4M3, e4m3, tiles).blocks(128, 128), f8 * of_tiles),
        ("f8 tiles", COMPUTE_F8, Weight(n, k, E4M3, e4m3, tiles).blocks(128, 128), f8 * of_tiles),
        ("f8 rows", COMPUTE_F8_BLOCK, Weight(n, k, E4M3, e4m3, rows), f8 * rows[:, None]),
        ("f8 runs", COMPUTE_F8_BLOCK, Weight(n, k, E4M3, e4m3, runs, 128), f8 * runs.repeat_interleave(128, 1)[:, :k]),
        ("i8 rows", COMPUTE_I8, Weight(n, k, I8, codes, rows), i8 * rows[:, None]),
        ("i8 tensor", COMPUTE_I8, tensor(I8, codes), i8 * one),
        ("i4 rows", COMPUTE_I8, Weight(n, k, I4, four, rows), ((unpack4(four, n, k, False) ^ 8) - 8).double() * rows[:, None]),
    ]
    if k % 32 == 0:
        weights.append(("i8 groups", COMPUTE_I8, Weight(n, k, I8, codes, groups, 32), i8 * groups.repeat_interleave(32, 1)[:, :k]))
    for name, compute, weight, exact in weights:
        weight.pack()
        for m in (1, 17, 200) if small else (1, 9, 16, 17, 64, 65, 200, 513, 570):
            x = torch.randn(m, k, device="cuda")
            bias = torch.randn(n, device="cuda")
            kind = "i8" if compute == COMPUTE_I8 else "f8"
            q, scale = quantized(x, kind, 128 if compute == COMPUTE_F8_BLOCK else k)
            # F8: sums of products come out of the tensor cores with fewer bits; blocks of x are rounded beside those of few rows.
            bound = 4e-6 * k ** 0.5 if kind == "i8" else 4e-3
            want = (q * scale).reshape(m, -1)[:, :k] @ exact.double().t()
            for b in (None, bias):
                y = torch.full((m, n), float("nan"), device="cuda")
                weight.linear(x, y, compute, weight.workspace(m, compute), b)
                right = want if b is None else want + bias.double()
                error = ((y.double() - right).norm() / right.norm()).item()
                key = f"{name} compute {compute} {'rows' if m > 16 else 'few rows'}"
                worst[key] = max(worst.get(key, 0), error)
                report(f"linear {name} {n}x{k} m={m} compute {compute} bias {b is not None}", error <= bound, f"error {error}")
            given = q.reshape(m, -1)[:, :k]
            given = given.to(torch.int8) if kind == "i8" else given.to(torch.float8_e4m3fn)
            scales = scale.float().reshape(m, -1).contiguous()
            y = torch.full((m, n), float("nan"), device="cuda", dtype=torch.bfloat16)
            strides = (scales.shape[1], 1 if compute == COMPUTE_F8_BLOCK else 0)
            weight.linear_codes(given.contiguous(), scales, strides, y, compute, weight.workspace(m, compute))
            error = ((y.double() - want).norm() / want.norm()).item()
            report(f"linear codes {name} {n}x{k} m={m} compute {compute}", error <= 6e-3, f"error {error}")
print("largest errors:", {key: float(f"{value:.2g}") for key, value in worst.items()})

for n, k in [(130, 400)] if small else [(320, 1104), (130, 400), (200, 4096), (1024, 512)]:
    rows = torch.rand(n, device="cuda") * 0.01 + 0.001
    codes = torch.randint(0, 256, (n, k), dtype=torch.uint8, device="cuda")
    e4m3 = torch.where((codes & 127) == 127, codes & 128, codes)
    i8, f8 = codes.view(torch.int8).double(), e4m3.view(torch.float8_e4m3fn).double()
    int8 = Weight(n, k, I8, codes, rows).pack()
    float8 = Weight(n, k, E4M3, e4m3, rows).pack()
    bias = torch.randn(n, device="cuda")
    for m in (1, 17, 200) if small else (1, 9, 16, 17, 65, 513, 1100):
        x = torch.randn(m, k, device="cuda")
        for kind, weight, exact, encoding, scale in (("i8", int8, i8, I8, 0.02), ("f8", float8, f8, E4M3, 0.005)):
            q = x / torch.full((), scale, device="cuda")
            q = q.round().clamp(-128, 127) if kind == "i8" else q.clamp(-448, 448).to(torch.float8_e4m3fn)
            want = (q.double() * torch.full((), scale, device="cuda").double()) @ (exact * rows[:, None].double()).t() + bias.double()
            rounding = Rounding(encoding, 0, scale)
            y = torch.full((m, n), float("nan"), device="cuda")
            weight.linear_static(x, rounding, y, weight.static_workspace(rounding, m), bias)
            error = ((y.double() - want).norm() / want.norm()).item()
            report(f"linear static {kind} {n}x{k} m={m}", error <= (4e-6 * k ** 0.5 if kind == "i8" else 1e-3), f"error {error}")
        for outliers in (0, 3, 40, k):
            x = torch.randn(m, k, device="cuda").half()
            x[torch.randint(0, m, (outliers,), device="cuda"), torch.randperm(k, device="cuda")[:outliers]] = -20.5
            apart = (x.abs() >= 6).any(0)
            absmax = torch.where(x.abs() < 6, x.abs(), 0).amax(1, keepdim=True).float()
            q = torch.where(apart, 0, (x.float() * (torch.full_like(absmax, 127.0) / absmax)).round())
            w = i8 * rows[:, None].double()
            want = (q.double() @ w.t()) * (absmax / torch.full_like(absmax, 127.0)).double() + torch.where(apart, x, 0).double() @ w.t()
            y = torch.full((m, n), float("nan"), device="cuda")
            int8.linear_outliers(x, 6.0, y, int8.outliers_workspace(m), bias)
            want = want + bias.double()
            error = ((y.double() - want).norm() / want.norm()).item()
            report(f"linear outliers {n}x{k} m={m}, {outliers}", error <= 4e-6 * k ** 0.5, f"error {error}")

def expert(kind, n, k):
    """A packed weight and the exact value of each element."""
    codes4 = torch.randint(0, 256, (n * k // 2,), dtype=torch.uint8, device="cuda")
    codes = torch.randint(0, 256, (n, k), dtype=torch.uint8, device="cuda")
    e4m3 = torch.where((codes & 127) == 127, codes & 128, codes)
    if kind.startswith("u4"):
        g = int(kind[4:])
        scale = (torch.rand(n, k // g, device="cuda") * 0.1 + 0.01).half()
        return Weight(n, k, U4, codes4, scale, g, zero_point=8).pack(), (unpack4(codes4, n, k, False) - 8) * scale.double().repeat_interleave(g, 1)
    if kind == "f8 tiles":
        tiles = torch.rand((n + 127) // 128, (k + 127) // 128, device="cuda") * 0.1 + 0.01
        exact = e4m3.view(torch.float8_e4m3fn).double() * tiles.double().repeat_interleave(128, 0)[:n].repeat_interleave(128, 1)[:, :k]
        return Weight(n, k, E4M3, e4m3, tiles).blocks(128, 128).pack(), exact
    rows = torch.rand(n, device="cuda") * 0.1 + 0.01
    if kind == "f8 rows":
        return Weight(n, k, E4M3, e4m3, rows).pack(), e4m3.view(torch.float8_e4m3fn).double() * rows[:, None]
    return Weight(n, k, I8, codes, rows).pack(), codes.view(torch.int8).double() * rows[:, None]


for n, k in [(130, 384)] if small else [(130, 384), (320, 1088), (1024, 512), (4100, 4096)]: # the last is large
    for kind, compute in (("u4 g64", COMPUTE_BF16), ("u4 g32", COMPUTE_BF16), ("i8", COMPUTE_BF16), ("i8", COMPUTE_I8), ("f8 rows", COMPUTE_F8), ("f8 tiles", COMPUTE_F8_BLOCK)):
        for bounds in ([0, 3, 3, 7], [0, 9, 9, 400]) if small else ([0, 0, 3, 3, 4, 20],) if n > 4096 else ([0, 0, 3, 3, 4, 20], [0, 25, 25, 60], [0, 70, 70, 71, 200, 201], [0, 9, 600, 601], list(range(0, 302, 2))):
            experts = [expert(kind, n, k) for _ in bounds[1:]]
            m = bounds[-1]
            x = torch.randn(m, k, device="cuda")
            if compute == COMPUTE_BF16:
                used = x.bfloat16().double()
            else:
                q, scale = quantized(x, "i8" if compute == COMPUTE_I8 else "f8", 128 if compute == COMPUTE_F8_BLOCK else k)
                used = (q * scale).reshape(m, -1)[:, :k]
            want = torch.cat([used[a:b] @ exact.t() for (_, exact), a, b in zip(experts, bounds, bounds[1:])])
            y = torch.full((m, n), float("nan"), device="cuda")
            group = Group([w for w, _ in experts])
            group.linear(x, torch.tensor(bounds, device="cuda"), y, compute, group.workspace(m, compute))
            error = ((y.double() - want).norm() / want.norm()).item()
            report(f"grouped {kind} {n}x{k} {bounds[:9]} compute {compute}", error <= (4e-6 * k ** 0.5 if compute == COMPUTE_I8 else 4e-3), f"error {error}")

for n, k in [(64, 256), (33, 130), (8, 4096), (3, 14336), (5, 7)]:
    for dtype in (torch.float32, torch.bfloat16):
        w = (torch.randn(n, k, device="cuda") * 0.05).to(dtype)
        scale = torch.empty(n, device="cuda")
        codes = torch.empty(n, k, dtype=torch.int8, device="cuda")
        Weight(n, k, I8, codes, scale).quantize(w, 127.0, -128, 127)
        want = w.float().abs().amax(1) / torch.full((), 127.0, device='cuda')
        report(f"quantize i8 {n}x{k}", torch.equal(scale, want) and torch.equal(codes, (w.float() / want[:, None]).round().to(torch.int8)))
        one = torch.empty(1, device="cuda")
        f8 = torch.empty(n, k, dtype=torch.uint8, device="cuda")
        weight = Weight(n, k, E4M3, f8, one)
        weight.matrix.block_rows, weight.matrix.scale_row_stride = n, 0
        weight.quantize(w, 448.0, -448, 448)
        want = w.float().abs().max() / torch.full((), 448.0, device='cuda')
        report(f"quantize e4m3 {n}x{k}", one.item() == want.item() and torch.equal(f8.view(torch.float8_e4m3fn).float(), (w.float() / want).clamp(-448, 448).to(torch.float8_e4m3fn).float()))
        if n * k % 64 == 0:
            absmax = torch.empty(n * k // 64, device="cuda")
            four = torch.zeros(n * k // 2, dtype=torch.uint8, device="cuda")
            Weight(n, k, NF4, four, absmax, flat=64, high_first=True).quantize(w, 1.0, -1, 1, reciprocal=True)
            blocks = w.float().reshape(-1, 64)
            want = blocks.abs().amax(1)
            table = torch.tensor(NF4_VALUES, device="cuda")
            nearest = (blocks / want[:, None]).unsqueeze(-1).sub(table).abs().argmin(-1)
            got = unpack4(four, n * k // 64, 64, True)
            report(f"quantize nf4 {n}x{k}", torch.equal(absmax, want) and (got != nearest).float().mean().item() < 1e-4)

print("failures:", failures)
sys.exit(failures > 0)
