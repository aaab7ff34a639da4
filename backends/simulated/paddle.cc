// A simulated second device for Paddle on machines without a GPU: host memory behind Paddle's C
// interface for custom devices. It has no kernels, so Paddle runs every operation on the CPU and
// copies the result back. It shows on which device each tensor is, not how a GPU computes.
#include <cstddef>
#include <cstdlib>
#include <cstring>

#include "paddle/phi/backends/device_ext.h"

namespace {
int current = 0;

// Devices, streams and events do nothing, because every copy is finished when it returns.
C_Status nothing() { return C_SUCCESS; }
C_Status on_device(const C_Device) { return C_SUCCESS; }
C_Status on_stream(const C_Device, C_Stream) { return C_SUCCESS; }
C_Status on_event(const C_Device, C_Event) { return C_SUCCESS; }
C_Status on_both(const C_Device, C_Stream, C_Event) { return C_SUCCESS; }
C_Status create_stream(const C_Device, C_Stream* s) { *s = nullptr; return C_SUCCESS; }
C_Status create_event(const C_Device, C_Event* e) { *e = nullptr; return C_SUCCESS; }
C_Status set_device(const C_Device device) { current = device->id; return C_SUCCESS; }
C_Status get_device(const C_Device device) { device->id = current; return C_SUCCESS; }
C_Status count(size_t* n) { *n = 1; return C_SUCCESS; }
C_Status list(size_t* ids) { ids[0] = 0; return C_SUCCESS; }
C_Status chunk(const C_Device, size_t* bytes) { *bytes = 512; return C_SUCCESS; }
C_Status memory(const C_Device, size_t* total, size_t* free) {
  *total = size_t{8} << 30;
  *free = size_t{4} << 30;
  return C_SUCCESS;
}

C_Status allocate(const C_Device, void** at, size_t bytes) {
  return posix_memalign(at, 64, bytes ? bytes : 64) ? C_FAILED : C_SUCCESS;
}
C_Status release(const C_Device, void* at, size_t) { std::free(at); return C_SUCCESS; }
C_Status fill(const C_Device, void* at, unsigned char value, size_t bytes) {
  std::memset(at, value, bytes);
  return C_SUCCESS;
}
C_Status copy(const C_Device, void* to, const void* from, size_t bytes) {
  std::memcpy(to, from, bytes);
  return C_SUCCESS;
}
C_Status queue_copy(const C_Device, C_Stream, void* to, const void* from, size_t bytes) {
  std::memcpy(to, from, bytes);
  return C_SUCCESS;
}

char name[] = "simulated";
char version[] = "1";
}  // namespace

void InitPlugin(CustomRuntimeParams* params) {
  PADDLE_CUSTOM_RUNTIME_CHECK_VERSION(params);
  params->device_type = name;
  params->sub_device_type = version;
  auto* device = params->interface;
  std::memset(static_cast<void*>(device), 0, sizeof *device);
  device->initialize = device->finalize = nothing;
  device->init_device = device->deinit_device = device->synchronize_device = on_device;
  device->set_device = set_device;
  device->get_device = get_device;
  device->get_device_count = count;
  device->get_device_list = list;
  device->device_memory_stats = memory;
  device->device_min_chunk_size = chunk;
  device->create_stream = create_stream;
  device->destroy_stream = device->query_stream = device->synchronize_stream = on_stream;
  device->create_event = create_event;
  device->destroy_event = device->query_event = device->synchronize_event = on_event;
  device->record_event = device->stream_wait_event = on_both;
  device->device_memory_allocate = device->host_memory_allocate = allocate;
  device->device_memory_deallocate = device->host_memory_deallocate = release;
  device->device_memory_set = fill;
  device->memory_copy_h2d = device->memory_copy_d2h = device->memory_copy_d2d = copy;
  device->async_memory_copy_h2d = device->async_memory_copy_d2h = queue_copy;
  device->async_memory_copy_d2d = queue_copy;
}
