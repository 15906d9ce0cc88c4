#include "dist/cuda/nccl.h"

#include <dlfcn.h>

namespace fathom::dist::cuda {
namespace {

constexpr int kOldest = 20'700;  // the first with ncclSend and ncclRecv

Result<Nccl> open_library() {
  void* library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    return error(ErrorCode::kUnavailable,
                 "GPUs of several nodes talk through NCCL, and libnccl.so.2 cannot be loaded ({}): install "
                 "the package libnccl2, or set LD_LIBRARY_PATH to where it lies",
                 dlerror());
  }
  Nccl nccl;
  std::string missing;
  const auto find = [&]<class F>(F& to, const char* name) {
    to = reinterpret_cast<F>(dlsym(library, name));
    if (to == nullptr) missing = name;
  };
  int (*get_version)(int*) = nullptr;
  find(get_version, "ncclGetVersion");
  find(nccl.get_unique_id, "ncclGetUniqueId");
  find(nccl.comm_init_rank, "ncclCommInitRank");
  find(nccl.comm_abort, "ncclCommAbort");
  find(nccl.comm_get_async_error, "ncclCommGetAsyncError");
  find(nccl.group_start, "ncclGroupStart");
  find(nccl.group_end, "ncclGroupEnd");
  find(nccl.send, "ncclSend");
  find(nccl.recv, "ncclRecv");
  find(nccl.get_error_string, "ncclGetErrorString");
  if (missing.empty()) FATHOM_TRY(nccl.check(get_version(&nccl.version), "ncclGetVersion"));
  if (!missing.empty() || nccl.version < kOldest) {
    return error(ErrorCode::kUnavailable, "libnccl.so.2 is too old (version {}{}): 2.7 or later is needed",
                 nccl.version, missing.empty() ? "" : ", without " + missing);
  }
  return nccl;
}

}  // namespace

Result<const Nccl*> Nccl::load() {
  static const Result<Nccl> loaded = open_library();
  FATHOM_TRY(loaded);
  return &*loaded;
}

Result<void> Nccl::check(int result, const char* what) const {
  if (result == kSuccess) return {};
  return error(ErrorCode::kInternal, "{}: {} (NCCL {})", what,
               get_error_string != nullptr ? get_error_string(result) : "unknown", version);
}

}  // namespace fathom::dist::cuda
