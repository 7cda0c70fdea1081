/*
 * Devices, memory, streams, events and graphs: CUDA's runtime behind Gatun's statuses. Linked statically, so that the
 * library loads where there is no GPU and answers GATUN_NO_DEVICE.
 */
#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "cuda_internal.h"

static thread_local char last_error[512];

gatun_status gatun_cuda_fail(gatun_status status, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(last_error, sizeof last_error, format, args);
    va_end(args);
    return status;
}

gatun_status gatun_cuda_status(cudaError_t error, const char *what) {
    switch (error) {
    case cudaSuccess:
        return GATUN_OK;
    case cudaErrorInsufficientDriver:
    case cudaErrorNoDevice:
    case cudaErrorInitializationError:
        (void)cudaGetLastError();
        return gatun_cuda_fail(GATUN_NO_DEVICE, "%s: no CUDA device or driver (%s)", what, cudaGetErrorString(error));
    case cudaErrorInvalidDevice:
        (void)cudaGetLastError();
        return gatun_cuda_fail(GATUN_NO_DEVICE, "%s: no such CUDA device", what);
    case cudaErrorMemoryAllocation:
        (void)cudaGetLastError();
        return gatun_cuda_fail(GATUN_OUT_OF_MEMORY, "%s: out of device memory", what);
    default:
        (void)cudaGetLastError();
        return gatun_cuda_fail(GATUN_INTERNAL, "%s: %s (CUDA error %d)", what, cudaGetErrorString(error), (int)error);
    }
}

#define CUDA(call, what) GATUN_CUDA_TRY(gatun_cuda_status((call), (what)))

gatun_status gatun_cuda_use(int32_t device) {
    int32_t count = 0;
    GATUN_CUDA_TRY(gatun_cuda_device_count(&count));
    if (device < 0 || device >= count)
        return gatun_cuda_fail(GATUN_NO_DEVICE, "found device %d, expected 0 to %d", device, count - 1);
    return gatun_cuda_status(cudaSetDevice(device), "device");
}

extern "C" {

int32_t gatun_cuda_abi_version(void) { return GATUN_CUDA_ABI_VERSION; }

const char *gatun_cuda_last_error(void) { return last_error; }

gatun_status gatun_cuda_versions(int32_t *driver, int32_t *runtime) {
    if (!driver || !runtime)
        return gatun_cuda_fail(GATUN_INVALID_ARGUMENT, "versions: found a null pointer");
    *driver = 0;
    *runtime = CUDART_VERSION;
    int version = 0;
    if (cudaDriverGetVersion(&version) == cudaSuccess)
        *driver = version;
    return GATUN_OK;
}

gatun_status gatun_cuda_device_count(int32_t *count) {
    if (!count)
        return gatun_cuda_fail(GATUN_INVALID_ARGUMENT, "device count: found a null pointer");
    *count = 0;
    int found = 0; /* not written on failure */
    CUDA(cudaGetDeviceCount(&found), "device count");
    if (found == 0)
        return gatun_cuda_fail(GATUN_NO_DEVICE, "device count: the driver found no CUDA device");
    *count = found;
    return GATUN_OK;
}

gatun_status gatun_cuda_device_at(int32_t device, gatun_cuda_device *out) {
    if (!out)
        return gatun_cuda_fail(GATUN_INVALID_ARGUMENT, "device: found a null pointer");
    memset(out, 0, sizeof *out);
    GATUN_CUDA_TRY(gatun_cuda_use(device));
    cudaDeviceProp p;
    CUDA(cudaGetDeviceProperties(&p, device), "device");
    snprintf(out->name, sizeof out->name, "%s", p.name);
    out->major = p.major;
    out->minor = p.minor;
    out->multiprocessors = p.multiProcessorCount;
    out->l2_bytes = p.l2CacheSize;
    out->memory_bytes = (int64_t)p.totalGlobalMem;
    return GATUN_OK;
}

gatun_status gatun_cuda_memory(int32_t device, int64_t *free_bytes, int64_t *total_bytes) {
    if (!free_bytes || !total_bytes)
        return gatun_cuda_fail(GATUN_INVALID_ARGUMENT, "memory: found a null pointer");
    GATUN_CUDA_TRY(gatun_cuda_use(device));
    size_t available = 0, total = 0;
    CUDA(cudaMemGetInfo(&available, &total), "memory");
    *free_bytes = (int64_t)available;
    *total_bytes = (int64_t)total;
    return GATUN_OK;
}

/* What the pool holds back serves the next allocation, so it counts as free. */
static int64_t pool_idle(int32_t device) {
    cudaMemPool_t pool;
    uint64_t reserved = 0, used = 0;
    if (cudaDeviceGetDefaultMemPool(&pool, device) != cudaSuccess)
        return 0;
    cudaMemPoolGetAttribute(pool, cudaMemPoolAttrReservedMemCurrent, &reserved);
    cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &used);
    return (int64_t)(reserved - used);
}

gatun_status gatun_cuda_allocate(int32_t device, int64_t size, gatun_cuda_stream stream, gatun_cuda_ptr *out) {
    if (!out || size < 1)
        return gatun_cuda_fail(GATUN_INVALID_ARGUMENT, "allocate: found %lld bytes, expected at least 1",
                               (long long)size);
    *out = 0;
    GATUN_CUDA_TRY(gatun_cuda_use(device));
    void *p = nullptr;
    cudaError_t error = cudaMallocAsync(&p, (size_t)size, gatun_cuda_raw(stream));
    if (error == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError();
        int64_t available = 0, total = 0;
        GATUN_CUDA_TRY(gatun_cuda_memory(device, &available, &total));
        return gatun_cuda_fail(GATUN_OUT_OF_MEMORY, "device %d: asked for %lld bytes, free are %lld of %lld", device,
                               (long long)size, (long long)(available + pool_idle(device)), (long long)total);
    }
    CUDA(error, "allocate");
    *out = (gatun_cuda_ptr)(uintptr_t)p;
    return GATUN_OK;
}

gatun_status gatun_cuda_free(int32_t device, gatun_cuda_ptr ptr, gatun_cuda_stream stream) {
    if (ptr == 0)
        return GATUN_OK;
    GATUN_CUDA_TRY(gatun_cuda_use(device));
    return gatun_cuda_status(cudaFreeAsync((void *)(uintptr_t)ptr, gatun_cuda_raw(stream)), "free");
}

gatun_status gatun_cuda_host_allocate(int32_t device, int64_t size, void **out) {
    if (!out || size < 1)
        return gatun_cuda_fail(GATUN_INVALID_ARGUMENT, "host memory: found %lld bytes, expected at least 1",
                               (long long)size);
    *out = nullptr;
    GATUN_CUDA_TRY(gatun_cuda_use(device));
    return gatun_cuda_status(cudaHostAlloc(out, (size_t)size, cudaHostAllocPortable), "host memory");
}

gatun_status gatun_cuda_host_free(void *ptr) {
    return ptr ? gatun_cuda_status(cudaFreeHost(ptr), "host memory") : GATUN_OK;
}

static gatun_status copy(int32_t device, void *dst, const void *src, int64_t size, cudaMemcpyKind kind,
                         gatun_cuda_stream stream) {
    if (size < 0 || (size > 0 && (!dst || !src)))
        return gatun_cuda_fail(GATUN_INVALID_ARGUMENT, "copy: found a null pointer or %lld bytes", (long long)size);
    if (size == 0)
        return GATUN_OK;
    GATUN_CUDA_TRY(gatun_cuda_use(device));
    return gatun_cuda_status(cudaMemcpyAsync(dst, src, (size_t)size, kind, gatun_cuda_raw(stream)), "copy");
}

gatun_status gatun_cuda_upload(int32_t device, gatun_cuda_ptr dst, const void *src, int64_t size,
                               gatun_cuda_stream stream) {
    return copy(device, (void *)(uintptr_t)dst, src, size, cudaMemcpyHostToDevice, stream);
}

gatun_status gatun_cuda_download(int32_t device, void *dst, gatun_cuda_ptr src, int64_t size,
                                 gatun_cuda_stream stream) {
    return copy(device, dst, (const void *)(uintptr_t)src, size, cudaMemcpyDeviceToHost, stream);
}

gatun_status gatun_cuda_copy(int32_t device, gatun_cuda_ptr dst, gatun_cuda_ptr src, int64_t size,
                             gatun_cuda_stream stream) {
    return copy(device, (void *)(uintptr_t)dst, (const void *)(uintptr_t)src, size, cudaMemcpyDeviceToDevice, stream);
}

gatun_status gatun_cuda_fill(int32_t device, gatun_cuda_ptr dst, int32_t byte, int64_t size, gatun_cuda_stream stream) {
    if (size < 0 || (size > 0 && !dst))
        return gatun_cuda_fail(GATUN_INVALID_ARGUMENT, "fill: found a null pointer or %lld bytes", (long long)size);
    if (size == 0)
        return GATUN_OK;
    GATUN_CUDA_TRY(gatun_cuda_use(device));
    return gatun_cuda_status(cudaMemsetAsync((void *)(uintptr_t)dst, byte, (size_t)size, gatun_cuda_raw(stream)),
                             "fill");
}

gatun_status gatun_cuda_stream_create(int32_t device, gatun_cuda_stream *out) {
    if (!out)
        return gatun_cuda_fail(GATUN_INVALID_ARGUMENT, "stream: found a null pointer");
    GATUN_CUDA_TRY(gatun_cuda_use(device));
    cudaStream_t stream;
    CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
    *out = (gatun_cuda_stream)(uintptr_t)stream;
    return GATUN_OK;
}

gatun_status gatun_cuda_stream_destroy(int32_t device, gatun_cuda_stream stream) {
    GATUN_CUDA_TRY(gatun_cuda_use(device));
    return gatun_cuda_status(cudaStreamDestroy(gatun_cuda_raw(stream)), "stream");
}

gatun_status gatun_cuda_stream_synchronize(int32_t device, gatun_cuda_stream stream) {
    GATUN_CUDA_TRY(gatun_cuda_use(device));
    return gatun_cuda_status(cudaStreamSynchronize(gatun_cuda_raw(stream)), "stream");
}

gatun_status gatun_cuda_event_create(int32_t device, gatun_cuda_event *out) {
    if (!out)
        return gatun_cuda_fail(GATUN_INVALID_ARGUMENT, "event: found a null pointer");
    GATUN_CUDA_TRY(gatun_cuda_use(device));
    cudaEvent_t event;
    CUDA(cudaEventCreate(&event), "event");
    *out = (gatun_cuda_event)(uintptr_t)event;
    return GATUN_OK;
}

static cudaEvent_t raw_event(gatun_cuda_event event) { return (cudaEvent_t)(uintptr_t)event; }

gatun_status gatun_cuda_event_destroy(int32_t device, gatun_cuda_event event) {
    GATUN_CUDA_TRY(gatun_cuda_use(device));
    return gatun_cuda_status(cudaEventDestroy(raw_event(event)), "event");
}

gatun_status gatun_cuda_event_record(int32_t device, gatun_cuda_event event, gatun_cuda_stream stream) {
    GATUN_CUDA_TRY(gatun_cuda_use(device));
    return gatun_cuda_status(cudaEventRecord(raw_event(event), gatun_cuda_raw(stream)), "event");
}

gatun_status gatun_cuda_event_synchronize(int32_t device, gatun_cuda_event event) {
    GATUN_CUDA_TRY(gatun_cuda_use(device));
    return gatun_cuda_status(cudaEventSynchronize(raw_event(event)), "event");
}

gatun_status gatun_cuda_stream_wait(int32_t device, gatun_cuda_stream stream, gatun_cuda_event event) {
    GATUN_CUDA_TRY(gatun_cuda_use(device));
    return gatun_cuda_status(cudaStreamWaitEvent(gatun_cuda_raw(stream), raw_event(event), 0), "stream");
}

gatun_status gatun_cuda_event_elapsed(int32_t device, gatun_cuda_event from, gatun_cuda_event to, float *ms) {
    if (!ms)
        return gatun_cuda_fail(GATUN_INVALID_ARGUMENT, "event: found a null pointer");
    GATUN_CUDA_TRY(gatun_cuda_use(device));
    return gatun_cuda_status(cudaEventElapsedTime(ms, raw_event(from), raw_event(to)), "event");
}

gatun_status gatun_cuda_capture_begin(int32_t device, gatun_cuda_stream stream) {
    GATUN_CUDA_TRY(gatun_cuda_use(device));
    return gatun_cuda_status(cudaStreamBeginCapture(gatun_cuda_raw(stream), cudaStreamCaptureModeThreadLocal),
                             "capture");
}

gatun_status gatun_cuda_capture_end(int32_t device, gatun_cuda_stream stream, gatun_cuda_graph *out) {
    if (!out)
        return gatun_cuda_fail(GATUN_INVALID_ARGUMENT, "capture: found a null pointer");
    *out = 0;
    GATUN_CUDA_TRY(gatun_cuda_use(device));
    cudaGraph_t graph;
    CUDA(cudaStreamEndCapture(gatun_cuda_raw(stream), &graph), "capture");
    cudaGraphExec_t exec;
    cudaError_t error = cudaGraphInstantiate(&exec, graph, 0);
    cudaGraphDestroy(graph);
    CUDA(error, "capture");
    *out = (gatun_cuda_graph)(uintptr_t)exec;
    return GATUN_OK;
}

gatun_status gatun_cuda_graph_launch(int32_t device, gatun_cuda_graph graph, gatun_cuda_stream stream) {
    if (!graph)
        return gatun_cuda_fail(GATUN_INVALID_ARGUMENT, "graph: found none");
    GATUN_CUDA_TRY(gatun_cuda_use(device));
    return gatun_cuda_status(cudaGraphLaunch((cudaGraphExec_t)(uintptr_t)graph, gatun_cuda_raw(stream)), "graph");
}

gatun_status gatun_cuda_graph_destroy(int32_t device, gatun_cuda_graph graph) {
    if (!graph)
        return GATUN_OK;
    GATUN_CUDA_TRY(gatun_cuda_use(device));
    return gatun_cuda_status(cudaGraphExecDestroy((cudaGraphExec_t)(uintptr_t)graph), "graph");
}

} // extern "C"
