"""Gatun's GPU kernels beside PyTorch's, medians over graph replays, weights rotated past the L2, one process."""

import json
import statistics
import sys

import torch

from gatun import *

ROTATE = 512 << 20  # bytes of weights in rotation


def median_us(calls):
    """Median time of one call, the calls captured one after the other in a graph."""
    for f in calls[:2]:
        f()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for f in calls:
            f()
    times = []
    for _ in range(12):
        a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        a.record()
        graph.replay()
        b.record()
        b.synchronize()
        times.append(a.elapsed_time(b) * 1000 / len(calls))
    return statistics.median(times[2:])


rows = []


def row(work, ours, peers, **more):
    rows.append({"work": work, "us": ours, "peers_us": peers, **more})
    ratios = "  ".join(f"{name} {us:.2f} us ({us / ours:.2f} x)" for name, us in peers.items())
    print(f"{work:44s} {ours:9.2f} us  {ratios}  {more if more else ''}", flush=True)


def weights(n, k, kind):
    """Enough random weights to leave the L2."""
    bits = 8 if kind in ("e4m3", "i8", "q8_0") else 4
    copies = max(2, min(48, ROTATE // (n * k * bits // 8)))
    out = []
    for _ in range(copies):
        codes = torch.randint(0, 256, (n * k * bits // 8,), dtype=torch.uint8, device="cuda")
        scale = lambda g, dtype: (torch.rand(n, k // g, device="cuda") * 0.02).to(dtype)
        if kind == "int4 g128":
            w = Weight(n, k, U4, codes, scale(128, torch.bfloat16), 128, zero_point=8)
        elif kind == "nf4":
            w = Weight(n, k, NF4, codes, scale(64, torch.float32), 64, high_first=True, result=BF16)
        elif kind == "q4_0":
            blocks = torch.randint(0, 256, (n * k // 32, 18), dtype=torch.uint8, device="cuda")
            blocks[:, :2] = (torch.rand(n * k // 32, 1, device="cuda") * 0.02).half().view(torch.uint8)
            w = Weight(n, k, Q4_0, blocks)
        elif kind == "mxfp4":
            blocks = torch.randint(0, 256, (n * k // 32, 17), dtype=torch.uint8, device="cuda")
            blocks[:, 0] = torch.randint(110, 124, (n * k // 32,), dtype=torch.uint8, device="cuda")
            w = Weight(n, k, MXFP4, blocks)
        elif kind == "q4_k":
            blocks = torch.randint(0, 256, (n * k // 256, 144), dtype=torch.uint8, device="cuda")
            blocks[:, :4] = (torch.rand(n * k // 256, 2, device="cuda") * 0.002).half().view(torch.uint8)
            w = Weight(n, k, Q4_K, blocks)
        elif kind == "e4m3":
            w = Weight(n, k, E4M3, finite(codes), scale(k, torch.float32))
        else:
            w = Weight(n, k, I8, codes, scale(k, torch.float32))
        out.append(w)
    return out


def finite(codes):
    """Codes of e4m3, the largest number in place of NaN."""
    return torch.where((codes & 127) == 127, codes & 254, codes)


def rotate(make, items):
    return [make(item) for item in items]


def copy_rate(size):
    a = torch.empty(size // 2, dtype=torch.uint8, device="cuda")
    b = torch.empty_like(a)
    return median_us([lambda: b.copy_(a)] * 4)


def dense(n, k, dtype=torch.bfloat16):
    count = max(2, ROTATE // (n * k * 2))
    return [(torch.randn(n, k, device="cuda") * 0.02).to(dtype) for _ in range(count)]


def bench_linear(n, k, ms, kinds):
    bf16 = dense(n, k)
    for m in ms:
        x = torch.randn(m, k, device="cuda", dtype=torch.bfloat16)
        peers = {"torch bf16": median_us(rotate(lambda w: lambda: torch.nn.functional.linear(x, w), bf16))}
        if m >= 16:
            f8 = [w.to(torch.float8_e4m3fn) for w in bf16]
            one = torch.ones((), device="cuda")
            x8 = x.to(torch.float8_e4m3fn)
            peers["torch fp8"] = median_us(rotate(lambda w: lambda: torch._scaled_mm(x8, w.t(), one, one, out_dtype=torch.bfloat16), f8))
            del f8
        if m <= 64:
            tiny = [torch.randint(0, 2 ** 31 - 1, (n // 8, k // 128, 32, 4), dtype=torch.int32, device="cuda") for _ in range(16)]
            zeros = torch.rand(k // 128, n, 2, device="cuda").bfloat16()
            peers["tinygemm int4"] = median_us(rotate(lambda w: lambda: torch.ops.aten._weight_int4pack_mm(x, w, 128, zeros), tiny))
        for kind in kinds:
            ws = [w.pack() for w in weights(n, k, kind)]
            y = torch.empty(m, n, device="cuda", dtype=torch.bfloat16)
            scratch = ws[0].workspace(m, COMPUTE_BF16)
            us = median_us(rotate(lambda w: lambda: w.linear(x, y, COMPUTE_BF16, scratch), ws))
            size = ws[0].packed.block_size
            row(f"linear {kind} {m}x{n}x{k}", us, peers, gbps=round(size / us / 1e3))
            del ws
    del bf16


def bench_codes(m, n, k):
    """Products of 8-bit codes, x quantized before, as the peers have it."""
    count = 3
    any_codes = lambda rows: finite(torch.randint(0, 256, (rows, k), dtype=torch.uint8, device="cuda")).view(torch.float8_e4m3fn)
    w8 = [any_codes(n) for _ in range(count)]
    x8 = any_codes(m)
    one, xs, ws = torch.ones((), device="cuda"), torch.rand(m, 1, device="cuda"), torch.rand(n, 1, device="cuda")
    y = torch.empty(m, n, device="cuda", dtype=torch.bfloat16)
    bias = torch.zeros(n, device="cuda")
    peers = {"torch tensor": median_us([lambda w=w: torch._scaled_mm(x8, w.t(), one, one, out_dtype=torch.bfloat16) for w in w8]),
             "torch rows": median_us([lambda w=w: torch._scaled_mm(x8, w.t(), xs, ws.t(), out_dtype=torch.bfloat16) for w in w8])}
    flops = 2 * m * n * k
    def ours(name, kind, compute, make, scales, strides, bias=None):
        packed = [make(w).pack() for w in w8]
        scratch = packed[0].workspace(m, compute)
        us = median_us([lambda w=w: w.linear_codes(x8, scales, strides, y, compute, scratch, bias) for w in packed])
        row(f"{name} {m}x{n}x{k}", us, peers, tflops=round(flops / us / 1e6))
    rows_of = lambda w: Weight(n, k, E4M3, w.view(torch.uint8), ws.flatten())
    ours("f8 rows (cuBLASLt)", "f8", COMPUTE_F8, rows_of, xs, (1, 0))
    ours("f8 rows (own, bias)", "f8", COMPUTE_F8, rows_of, xs, (1, 0), bias)
    tiles, runs = torch.rand((n + 127) // 128, (k + 127) // 128, device="cuda"), torch.rand(m, (k + 127) // 128, device="cuda")
    ours("f8 128 blocks", "f8", COMPUTE_F8_BLOCK, lambda w: Weight(n, k, E4M3, w.view(torch.uint8), tiles).blocks(128, 128), runs, (runs.shape[1], 1))
    w8 = [torch.randint(-127, 128, (n, k), dtype=torch.int8, device="cuda") for _ in range(count)]
    x8 = torch.randint(-127, 128, (m, k), dtype=torch.int8, device="cuda")
    peers = {"torch._int_mm": median_us([lambda w=w: torch._int_mm(x8, w.t()) for w in w8]),
             "with scales": median_us([lambda w=w: (torch._int_mm(x8, w.t()) * xs * ws.t()).bfloat16() for w in w8])}
    ours("i8 rows, fused scales", "i8", COMPUTE_I8, lambda w: Weight(n, k, I8, w.view(torch.uint8), ws.flatten()), xs, (1, 0))


def bench_codecs(n, k):
    for kind in ("int4 g128", "nf4", "e4m3", "i8", "q4_0", "q4_k"):
        ws = weights(n, k, kind)[:8]
        outs = [torch.empty(n, k, device="cuda", dtype=torch.bfloat16) for _ in range(4)]
        us = median_us([lambda w=w, o=outs[i % 4]: w.dequantize(torch.bfloat16, o) for i, w in enumerate(ws)])
        moved = ws[0].bytes() + n * k * 2
        row(f"dequantize {kind} {n}x{k} -> bf16", us, {"copy": copy_rate(moved)}, gbps=round(moved / us / 1e3))
    for name, encoding, bits, divisor, low, high, flat in (("nf4", NF4, 4, 1.0, -1, 1, 64), ("i8", I8, 8, 127.0, -128, 127, 0),
                                                           ("e4m3 rows", E4M3, 8, 448.0, -448, 448, 0)):
        sources = [torch.randn(n, k, device="cuda", dtype=torch.bfloat16) for _ in range(4)]
        ws = []
        for _ in range(4):
            codes = torch.empty(n * k * bits // 8, dtype=torch.uint8, device="cuda")
            scales = torch.empty(n * k // 64 if flat else n, device="cuda")
            ws.append(Weight(n, k, encoding, codes, scales, flat=flat))
        us = median_us([lambda w=w, s=s: w.quantize(s, divisor, low, high, bits == 4) for w, s in zip(ws, sources)])
        moved = ws[0].bytes() + n * k * 2
        row(f"quantize bf16 {n}x{k} -> {name}", us, {"copy": copy_rate(moved)}, gbps=round(moved / us / 1e3))


def int8_with_outliers(x, w, scales, columns):
    """LLM.int8()'s product in PyTorch's own operations; columns: which are multiplied apart."""
    rest = x.index_fill(1, columns, 0)
    absmax = rest.abs().amax(1, keepdim=True).float()
    codes = (rest.float() * (127 / absmax)).round().to(torch.int8)
    y = (torch._int_mm(codes, w.t()) * (absmax / 127) * scales).half()
    return y.addmm_(x[:, columns], (w[:, columns] * scales[:, None]).half().t())


def eager_us(f):
    for _ in range(3):
        f()
    times = []
    for _ in range(20):
        a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        a.record()
        f()
        b.record()
        b.synchronize()
        times.append(a.elapsed_time(b) * 1000)
    return statistics.median(times)


def bench_activations(n, k, ms):
    """x that is rounded with one scale, and LLM.int8() with 0.5 % of the columns apart."""
    w8 = [torch.randint(-127, 128, (n, k), dtype=torch.int8, device="cuda") for _ in range(max(2, ROTATE // (n * k)))]
    scales = torch.rand(n, device="cuda") * 0.01
    packed = [Weight(n, k, I8, w.view(torch.uint8), scales).pack() for w in w8]
    f8 = [Weight(n, k, E4M3, finite(w.view(torch.uint8)), scales).pack() for w in w8]
    for m in ms:
        x = torch.randn(m, k, device="cuda", dtype=torch.float16)
        columns = torch.randperm(k, device="cuda")[: k // 200].sort().values
        x[0, columns] = 9
        y = torch.empty(m, n, device="cuda", dtype=torch.float16)
        scratch = packed[0].outliers_workspace(m)
        us = median_us([lambda w=w: w.linear_outliers(x, 6.0, y, scratch) for w in packed])
        peers = {}
        if m > 16: # torch._int_mm's least
            peers["the same in PyTorch, columns known"] = median_us([lambda w=w: int8_with_outliers(x, w, scales, columns) for w in w8])
            found = lambda w=w8[0]: int8_with_outliers(x, w, scales, (x.abs() >= 6).any(0).nonzero().flatten())
            peers["the same, columns found"] = eager_us(found)
        row(f"llm.int8 {m}x{n}x{k}, 0.5 % outliers", us, peers)
        for name, weights, rounding in (("i8", packed, Rounding(I8, 0, 0.02)), ("e4m3", f8, Rounding(E4M3, 0, 0.01))):
            scratch = weights[0].static_workspace(rounding, m)
            us = median_us([lambda w=w: w.linear_static(x, rounding, y, scratch) for w in weights])
            row(f"static {name} {m}x{n}x{k}", us, {})


def bench_grouped(kind, compute):
    """Experts in one call beside one expert after the other in a graph, ours and PyTorch's, and PyTorch's grouped product."""
    for count, n, k, ms in ((8, 14336, 4096, (16, 64, 512, 4096)), (128, 1536, 2048, (64, 1024, 8192, 32768))):
        packed = [w.pack() for w in (weights(n, k, kind) * count)[:count]]
        group = Group(packed)
        bf16 = torch.randn(count, n, k, device="cuda", dtype=torch.bfloat16)
        for m in ms:
            bounds = torch.cat([torch.zeros(1), torch.rand(count).cumsum(0)])
            offsets = (bounds / bounds[-1] * m).round().long().cuda()
            starts = offsets.tolist()
            x = torch.randn(m, k, device="cuda", dtype=torch.bfloat16)
            y = torch.empty(m, n, device="cuda", dtype=torch.bfloat16)
            scratch = group.workspace(m, compute)
            us = median_us([lambda: group.linear(x, offsets, y, compute, scratch)] * 4)
            alone = packed[0].workspace(m, compute)
            def one_by_one():
                for e, w in enumerate(packed):
                    a, b = starts[e], starts[e + 1]
                    if b > a:
                        w.linear(x[a:b], y[a:b], compute, alone)
            def torch_one_by_one():
                for e, w in enumerate(bf16):
                    a, b = starts[e], starts[e + 1]
                    if b > a:
                        torch.mm(x[a:b], w.t(), out=y[a:b])
            peers = {"one by one": median_us([one_by_one] * 4), "torch bf16 one by one": median_us([torch_one_by_one] * 4)}
            if hasattr(torch, "_grouped_mm"):
                ends = offsets[1:].int()
                peers["torch bf16 grouped"] = median_us([lambda: torch._grouped_mm(x, bf16.transpose(1, 2), offs=ends)] * 4)
            row(f"grouped {kind} {count} experts {m}x{n}x{k}", us, peers)


torch.manual_seed(0)
print(torch.cuda.get_device_name(), "torch", torch.__version__)
row("copy of 4 GiB", copy_rate(4 << 30), {}, gbps=round((4 << 30) / copy_rate(4 << 30) / 1e3))
kinds = ["int4 g128", "nf4", "q4_0", "mxfp4"]
rows_of_x = [int(v) for v in sys.argv[1].split(",")] if len(sys.argv) > 1 else [1, 16, 64, 512, 4096]
parts = sys.argv[2].split(",") if len(sys.argv) > 2 else ["linear", "codes", "activations", "grouped", "codecs"]
if "linear" in parts:
    bench_linear(14336, 4096, rows_of_x, kinds)
    bench_linear(4096, 4096, (1,), ["int4 g128", "nf4", "e4m3"])
if "codes" in parts:
    bench_codes(8192, 8192, 8192)
    bench_codes(4096, 14336, 4096)
if "activations" in parts:
    bench_activations(14336, 4096, [m for m in rows_of_x if m <= 4096])
if "grouped" in parts:
    bench_grouped("int4 g128", COMPUTE_BF16)
    bench_grouped("i8", COMPUTE_I8)
    bench_grouped("e4m3", COMPUTE_F8)
if "codecs" in parts:
    bench_codecs(14336, 4096)
json.dump({"device": torch.cuda.get_device_name(), "rows": rows}, open("cuda-bench.json", "w"), indent=1)
