"""libgatun_cuda for Python, so that one process can run Gatun's kernels beside PyTorch's: structs and calls of gatun_cuda.h."""

import ctypes as c
import os

import torch

F32, F16, BF16, E4M3, E5M2, E8M0 = 1, 2, 3, 16, 17, 20
I8, U8, I4, U4, NF4, FP4, E2M1 = 32, 33, 48, 49, 50, 51, 52
Q4_0, Q4_1, Q8_0, Q4_K, Q6_K, IQ4_NL, MXFP4, NVFP4 = 130, 131, 136, 140, 142, 148, 167, 168
COMPUTE_F32, COMPUTE_BF16, COMPUTE_I8, COMPUTE_F8, COMPUTE_F8_BLOCK = 1, 2, 3, 5, 6
TYPES = {torch.float32: F32, torch.float16: F16, torch.bfloat16: BF16}

i32, i64, f32, p = c.c_int32, c.c_int64, c.c_float, c.c_void_p


class Matrix(c.Structure):
    _fields_ = [
        ("n", i64), ("k", i64), ("encoding", i32), ("code_order", i32), ("code_row_stride", i64), ("codes", p),
        ("codes_size", i64), ("scale_type", i32), ("zero_type", i32), ("scales", p), ("scales_size", i64), ("zeros", p),
        ("zeros_size", i64), ("offsets", p), ("offsets_size", i64), ("offset_type", i32), ("offset_sign", i32),
        ("block_rows", i64), ("block_cols", i64), ("flat_block", i64), ("scale_row_stride", i64),
        ("scale_col_stride", i64), ("nested_codebook", p), ("nested_scales", p), ("nested_scales_size", i64),
        ("nested_block", i64), ("nested_offset", f32), ("global_scale", f32), ("zero_point", i32), ("arithmetic", i32),
        ("result", i32), ("scale_order", i32), ("codebook", p), ("codebook_size", i64), ("column_groups", p),
        ("column_groups_size", i64), ("row_scales", p), ("row_scales_size", i64), ("rotation", i64),
    ]


class Rule(c.Structure):
    _fields_ = [("arithmetic", i32), ("reciprocal", i32), ("divisor", f32), ("scale_floor", f32), ("code_min", f32),
                ("code_max", f32), ("keep_scales", i32), ("zero_code", i32)]


class Packed(c.Structure):
    _fields_ = [("matrix", Matrix), ("block", c.c_uint64), ("block_size", i64), ("form", i32), ("scale_type", i32),
                ("group", i64), ("groups", i64), ("tiles", i64), ("steps", i64), ("table_offset", i64),
                ("codes_offset", i64), ("scales_offset", i64), ("zeros_offset", i64), ("offsets_offset", i64)]


class Rounding(c.Structure):
    _fields_ = [("encoding", i32), ("reciprocal", i32), ("scale", f32)]


class Expert(c.Structure):
    _fields_ = [("packed", c.POINTER(Packed)), ("bias", c.c_uint64), ("x_multiplier", c.c_uint64)]


class GroupStruct(c.Structure):
    _fields_ = [("block", c.c_uint64), ("n", i64), ("k", i64), ("count", i64), ("tiles", i64), ("steps", i64), ("group", i64),
                ("encoding", i32), ("form", i32), ("codes", i32), ("multiplies", i32), ("affine", i32), ("scale_type", i32),
                ("hopper", i32)]


lib = c.CDLL(os.environ["GATUN_CUDA_LIBRARY"])
lib.gatun_cuda_last_error.restype = c.c_char_p


def call(name, *args):
    status = getattr(lib, "gatun_cuda_" + name)(*args)
    if status != 0:
        raise RuntimeError(f"{name}: status {status}: {lib.gatun_cuda_last_error().decode()}")


def stream():
    return c.c_uint64(torch.cuda.current_stream().cuda_stream)


def u64(tensor):
    return c.c_uint64(0 if tensor is None else tensor.data_ptr())


class Weight:
    """A matrix whose parts are tensors on the device, and its packed form."""

    def __init__(self, n, k, encoding, codes, scales=None, group=None, flat=0, high_first=False, zero_point=0,
                 offsets=None, arithmetic=F32, result=F32):
        self.keep = [codes, scales, offsets]
        m = self.matrix = Matrix()
        m.n, m.k, m.encoding, m.code_order = n, k, encoding, int(high_first)
        m.codes, m.codes_size = codes.data_ptr(), codes.numel() * codes.element_size()
        if scales is not None:
            kinds = {torch.float8_e4m3fn: E4M3, torch.uint8: E8M0, **TYPES}
            m.scale_type = kinds[scales.dtype]
            m.scales, m.scales_size = scales.data_ptr(), scales.numel() * scales.element_size()
        if offsets is not None:
            m.offset_type, m.offset_sign = TYPES[offsets.dtype], 1
            m.offsets, m.offsets_size = offsets.data_ptr(), offsets.numel() * offsets.element_size()
        group = group or k
        m.flat_block = flat
        m.block_rows, m.block_cols = 1, group
        m.scale_row_stride, m.scale_col_stride = (k + group - 1) // group, 1
        m.global_scale, m.zero_point, m.arithmetic, m.result = 1.0, zero_point, arithmetic, result
        self.packed = None

    def bytes(self):
        return sum(t.numel() * t.element_size() for t in self.keep if t is not None)

    def quantize(self, w, divisor, low, high, reciprocal=False, zero_code=-1):
        rule = Rule(F32, int(reciprocal), divisor, 0.0, low, high, 0, zero_code)
        call("quantize", 0, c.byref(self.matrix), c.byref(rule), u64(w), TYPES[w.dtype], i64(w.shape[1]), stream())
        return self

    def dequantize(self, dtype, out=None):
        m = self.matrix
        out = out if out is not None else torch.full((m.n, m.k), float("nan"), dtype=dtype, device="cuda")
        call("dequantize", 0, c.byref(m), i64(0), i64(m.n), u64(out), TYPES[dtype], i64(m.k), stream())
        return out

    def pack(self):
        size = i64()
        call("packed_size", c.byref(self.matrix), c.byref(size))
        self.block = torch.empty(size.value, dtype=torch.uint8, device="cuda")
        self.packed = Packed()
        call("pack", 0, c.byref(self.matrix), u64(self.block), size, c.byref(self.packed), stream())
        return self

    def workspace(self, m, compute):
        size = i64()
        call("linear_workspace", c.byref(self.packed), i64(m), compute, c.byref(size))
        return torch.empty(max(size.value, 1), dtype=torch.uint8, device="cuda")

    def linear_codes(self, x, scales, strides, y, compute, workspace, bias=None):
        """x as int8 or e4m3 codes; strides of its scales in elements."""
        call("linear_codes", 0, c.byref(self.packed), u64(x), I8 if x.dtype == torch.int8 else E4M3, i64(x.shape[1]),
             i64(x.shape[0]), u64(scales), i64(strides[0]), i64(strides[1]), u64(y), TYPES[y.dtype], i64(y.shape[1]),
             u64(bias), 0, 0, c.c_uint64(0), i64(0), compute, u64(workspace), i64(workspace.numel()), stream())
        return y

    def blocks(self, rows, columns):
        """One scale a tile of rows x columns."""
        m = self.matrix
        m.block_rows, m.block_cols = rows, columns
        m.scale_row_stride = (m.k + columns - 1) // columns
        return self

    def linear(self, x, y, compute, workspace, bias=None, activation=0):
        call("linear", 0, c.byref(self.packed), u64(x), TYPES[x.dtype], i64(x.shape[1]), i64(x.shape[0]), u64(y),
             TYPES[y.dtype], i64(y.shape[1]), u64(bias), c.c_uint64(0), activation, 0, c.c_uint64(0), i64(0), compute,
             u64(workspace), i64(workspace.numel()), stream())
        return y

    def sized(self, name, *args):
        """The workspace that a function of this name asks for."""
        size = i64()
        call(name + "_workspace", c.byref(self.packed), *args, c.byref(size))
        return torch.empty(max(size.value, 1), dtype=torch.uint8, device="cuda")

    def around(self, x, y, bias):
        """The arguments from x to ld_other."""
        return (u64(x), TYPES[x.dtype], i64(x.shape[1]), i64(x.shape[0]), u64(y), TYPES[y.dtype], i64(y.shape[1]), u64(bias),
                c.c_uint64(0), 0, 0, c.c_uint64(0), i64(0))

    def linear_static(self, x, rounding, y, workspace, bias=None):
        call("linear_static", 0, c.byref(self.packed), c.byref(rounding), None, *self.around(x, y, bias), u64(workspace),
             i64(workspace.numel()), stream())
        return y

    def static_workspace(self, rounding, m):
        return self.sized("linear_static", c.byref(rounding), None, F32, i64(m))

    def linear_outliers(self, x, threshold, y, workspace, bias=None):
        call("linear_outliers", 0, c.byref(self.packed), f32(threshold), *self.around(x, y, bias), u64(workspace),
             i64(workspace.numel()), stream())
        return y

    def outliers_workspace(self, m):
        return self.sized("linear_outliers", i64(m))


class Group:
    """Packed weights of one shape that are multiplied in one call."""

    def __init__(self, packed):
        self.keep = packed
        experts = (Expert * len(packed))(*(Expert(c.pointer(w.packed), 0, 0) for w in packed))
        size = i64()
        call("group_size", i64(len(packed)), c.byref(size))
        self.block = torch.empty(size.value, dtype=torch.uint8, device="cuda")
        self.struct = GroupStruct()
        call("group_pack", 0, experts, i64(len(packed)), u64(self.block), size, c.byref(self.struct), stream())

    def workspace(self, m, compute):
        size = i64()
        call("linear_grouped_workspace", c.byref(self.struct), i64(m), compute, c.byref(size))
        return torch.empty(max(size.value, 1), dtype=torch.uint8, device="cuda")

    def linear(self, x, offsets, y, compute, workspace):
        call("linear_grouped", 0, c.byref(self.struct), u64(offsets), u64(x), TYPES[x.dtype], i64(x.shape[1]), i64(x.shape[0]),
             u64(y), TYPES[y.dtype], i64(y.shape[1]), 0, 0, c.c_uint64(0), i64(0), compute, u64(workspace),
             i64(workspace.numel()), stream())
        return y
