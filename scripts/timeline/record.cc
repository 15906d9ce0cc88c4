// Writes when each kernel of a program's last moments began and ended on its GPU, graphs' included, where the
// program is run with CUDA_INJECTION64_PATH=THIS and TIMELINE=FILE: a line a kernel, of GPU, beginning (us),
// duration (us), CTAs and name. CUPTI keeps kernels that overlap apart. Loaded by timeline.sh alone.
#include <cupti.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string>
#include <vector>

namespace {

struct Kernel {
  uint64_t start, end;
  uint32_t gpu, ctas;
  std::string name;
};

constexpr size_t kBufferBytes = 8 << 20;
constexpr size_t kKept = 6000;  // kernels, the last ones
std::mutex mutex;
std::vector<Kernel> kernels;

void CUPTIAPI give_buffer(uint8_t** buffer, size_t* size, size_t* records) {
  *buffer = static_cast<uint8_t*>(std::aligned_alloc(8, kBufferBytes));
  *size = kBufferBytes;
  *records = 0;
}

void CUPTIAPI take_buffer(CUcontext, uint32_t, uint8_t* buffer, size_t, size_t valid) {
  const std::lock_guard lock(mutex);
  for (CUpti_Activity* record = nullptr;
       cuptiActivityGetNextRecord(buffer, valid, &record) == CUPTI_SUCCESS;) {
    if (record->kind != CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) continue;
    const auto* k = reinterpret_cast<const CUpti_ActivityKernel9*>(record);
    kernels.push_back({k->start, k->end, k->deviceId, static_cast<uint32_t>(k->gridX * k->gridY * k->gridZ),
                       k->name != nullptr ? k->name : "?"});
  }
  std::free(buffer);
}

void write() {
  cuptiActivityFlushAll(1);
  const char* path = std::getenv("TIMELINE");
  FILE* file = path != nullptr ? std::fopen(path, "w") : nullptr;
  if (file == nullptr) return;
  std::sort(kernels.begin(), kernels.end(),
            [](const Kernel& a, const Kernel& b) { return a.start < b.start; });
  const size_t first = kernels.size() > kKept ? kernels.size() - kKept : 0;
  for (size_t i = first; i < kernels.size(); ++i) {
    const Kernel& k = kernels[i];
    std::fprintf(file, "%u %.3f %.3f %u %s\n", k.gpu,
                 static_cast<double>(k.start - kernels[first].start) / 1e3,
                 static_cast<double>(k.end - k.start) / 1e3, k.ctas, k.name.c_str());
  }
  std::fclose(file);
}

}  // namespace

extern "C" int InitializeInjection() {
  cuptiActivityRegisterCallbacks(give_buffer, take_buffer);
  if (cuptiActivityEnable(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) != CUPTI_SUCCESS) {
    std::fputs("timeline: CUPTI records no kernels here\n", stderr);
    return 0;
  }
  std::atexit(write);
  return 1;
}
