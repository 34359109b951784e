/* A CUDA runtime and cuBLAS that accept everything and do nothing.
 *
 * Loaded in front of the real ones it lets torch make a whole training step for a GPU on a machine
 * without one. What stays real is what torch does on the host: its operators, their temporaries, its
 * checks and its caching allocator. No kernel runs and no value is right.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cuda.h>
#include <cuda_runtime_api.h>
#undef cudaGetDeviceProperties

#define MEMORY ((size_t)1000 << 30) /* bytes of the card: what is reserved is asked, not refused */
#define BEGIN 0x700000000000ull     /* addresses of the card's memory */
#define END 0x7e0000000000ull
#define PAGE 0x200000ull
#define SHARED (227 * 1024) /* bytes of a block's memory on an H100 */
#define PROCESSORS 132

/* What copies of a single number to the host bring. */
volatile int64_t null_card_value = 0;

static uintptr_t next_address = BEGIN;

static void *reserve(size_t size) {
  size_t pages = (size + PAGE - 1) & ~(PAGE - 1);
  return (void *)__sync_fetch_and_add(&next_address, pages);
}

static int on_card(const void *address) {
  return (uintptr_t)address >= BEGIN && (uintptr_t)address < END;
}

/* The device. */

cudaError_t cudaGetDeviceCount(int *count) { *count = 1; return cudaSuccess; }
cudaError_t cudaGetDevice(int *device) { *device = 0; return cudaSuccess; }
cudaError_t cudaDriverGetVersion(int *version) { *version = 13000; return cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int *version) { *version = 13000; return cudaSuccess; }
cudaError_t cudaDeviceCanAccessPeer(int *can, int a, int b) { *can = 0; return cudaSuccess; }

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
  *least = 0;
  *greatest = -5;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *card, int device) {
  memset(card, 0, sizeof *card);
  strcpy(card->name, "null card");
  card->major = 9;
  card->warpSize = 32;
  card->multiProcessorCount = PROCESSORS;
  card->totalGlobalMem = MEMORY;
  card->maxThreadsPerBlock = 1024;
  card->maxThreadsPerMultiProcessor = 2048;
  card->maxBlocksPerMultiProcessor = 32;
  card->regsPerBlock = card->regsPerMultiprocessor = 65536;
  card->maxThreadsDim[0] = card->maxThreadsDim[1] = 1024;
  card->maxThreadsDim[2] = 64;
  card->maxGridSize[0] = 2147483647;
  card->maxGridSize[1] = card->maxGridSize[2] = 65535;
  card->sharedMemPerBlock = 48 * 1024;
  card->sharedMemPerBlockOptin = SHARED;
  card->sharedMemPerMultiprocessor = 228 * 1024;
  card->textureAlignment = 512;
  card->memoryBusWidth = 5120;
  card->l2CacheSize = 50 << 20;
  card->canMapHostMemory = card->unifiedAddressing = 1;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr which, int device) {
  switch (which) {
    case cudaDevAttrMultiProcessorCount: *value = PROCESSORS; break;
    case cudaDevAttrComputeCapabilityMajor: *value = 9; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = SHARED; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = 48 * 1024; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *value = 2048; break;
    case cudaDevAttrMaxThreadsPerBlock: *value = 1024; break;
    case cudaDevAttrWarpSize: *value = 32; break;
    case cudaDevAttrMaxGridDimX: *value = 2147483647; break;
    case cudaDevAttrMaxGridDimY: *value = 65535; break;
    case cudaDevAttrMaxRegistersPerBlock: *value = 65536; break;
    default: *value = 0;
  }
  return cudaSuccess;
}

CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned *flags, int *active) {
  if (flags) *flags = 0;
  if (active) *active = 1;
  return CUDA_SUCCESS;
}

static CUresult nothing(void) { return CUDA_SUCCESS; }

cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned version,
                                             unsigned long long flags,
                                             enum cudaDriverEntryPointQueryResult *found) {
  *function = (void *)nothing;
  if (strcmp(name, "cuDevicePrimaryCtxGetState") == 0) *function = (void *)cuDevicePrimaryCtxGetState;
  if (found) *found = cudaDriverEntryPointSuccess;
  return cudaSuccess;
}

/* Memory. */

cudaError_t cudaMalloc(void **address, size_t size) { *address = reserve(size); return cudaSuccess; }

cudaError_t cudaMemGetInfo(size_t *available, size_t *total) {
  *available = *total = MEMORY;
  return cudaSuccess;
}

cudaError_t cudaHostAlloc(void **address, size_t size, unsigned flags) {
  *address = aligned_alloc(4096, (size + 4095) & ~(size_t)4095);
  return *address ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *is, const void *address) {
  memset(is, 0, sizeof *is);
  is->type = on_card(address) ? cudaMemoryTypeDevice : cudaMemoryTypeUnregistered;
  is->devicePointer = (void *)address;
  return cudaSuccess;
}

static cudaError_t copy(void *to, const void *from, size_t size) {
  if (on_card(to)) return cudaSuccess;
  if (!on_card(from)) {
    memcpy(to, from, size);
    return cudaSuccess;
  }
  memset(to, 0, size);
  int64_t value = null_card_value;
  if (size == 8) *(int64_t *)to = value;
  if (size == 4) *(int32_t *)to = (int32_t)value;
  if (size == 1) *(char *)to = value != 0;
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t size, enum cudaMemcpyKind kind,
                            cudaStream_t stream) {
  return copy(to, from, size);
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t size, enum cudaMemcpyKind kind) {
  return copy(to, from, size);
}

cudaError_t cudaGetSymbolAddress(void **address, const void *symbol) {
  *address = reserve(PAGE);
  return cudaSuccess;
}

/* Streams, events, launches. */

static cudaError_t handle(void **made) { *made = reserve(PAGE); return cudaSuccess; }
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int priority) {
  return handle((void **)stream);
}
cudaError_t cudaStreamCreate(cudaStream_t *stream) { return handle((void **)stream); }
cudaError_t cudaEventCreate(cudaEvent_t *event) { return handle((void **)event); }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) {
  return handle((void **)event);
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status) {
  *status = cudaStreamCaptureStatusNone;
  return cudaSuccess;
}

cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, enum cudaStreamCaptureStatus *status,
                                     unsigned long long *id, cudaGraph_t *graph,
                                     const cudaGraphNode_t **nodes, const cudaGraphEdgeData **edges,
                                     size_t *count) {
  *status = cudaStreamCaptureStatusNone;
  if (id) *id = 0;
  return cudaSuccess;
}

cudaError_t cudaStreamGetPriority(cudaStream_t stream, int *priority) {
  *priority = 0;
  return cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  *milliseconds = 1;
  return cudaSuccess;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void *data) {
  function(data);
  return cudaSuccess;
}

cudaError_t __cudaGetKernel(void **kernel, const void *function) {
  *kernel = (void *)function;
  return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *has, const void *function) {
  memset(has, 0, sizeof *has);
  has->ptxVersion = has->binaryVersion = 90;
  has->maxThreadsPerBlock = 1024;
  has->numRegs = 32;
  has->maxDynamicSharedSizeBytes = SHARED;
  return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, const void *function,
                                                                   int threads, size_t shared,
                                                                   unsigned flags) {
  *blocks = 2;
  return cudaSuccess;
}

/* Products. */

static int object(void **made) { *made = calloc(1, 256); return 0; }
int cublasCreate_v2(void **made) { return object(made); }
int cublasLtMatmulDescCreate(void **made, int type, int scale) { return object(made); }
int cublasLtMatmulPreferenceCreate(void **made) { return object(made); }
int cublasLtMatrixLayoutCreate(void **made, int type, uint64_t rows, uint64_t columns, int64_t lead) {
  return object(made);
}
int cublasLtMatmulDescDestroy(void *made) { free(made); return 0; }
int cublasLtMatrixLayoutDestroy(void *made) { free(made); return 0; }
int cublasLtMatmulPreferenceDestroy(void *made) { free(made); return 0; }
int cublasGetMathMode(void *handle, int *mode) { *mode = 0; return 0; }
int cublasGetPointerMode_v2(void *handle, int *mode) { *mode = 0; return 0; }
size_t cublasLtGetVersion(void) { return 130100; }
int cublasLtMatmulAlgoGetHeuristic(void *handle, void *operation, void *a, void *b, void *c, void *d,
                                   void *preference, int wanted, void *results, int *count) {
  memset(results, 0, 96); /* one result */
  *count = 1;
  return 0;
}

int cusolverDnCreate(void **made) { return object(made); }

static int small(int *size) { *size = 16; return 0; }
int cusolverDnDgetrf_bufferSize(void *handle, int m, int n, void *a, int lead, int *size) {
  return small(size);
}
int cusolverDnSgetrf_bufferSize(void *handle, int m, int n, void *a, int lead, int *size) {
  return small(size);
}
