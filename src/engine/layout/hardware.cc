#include "engine/layout/hardware.h"

#include <algorithm>
#include <array>

namespace fathom::engine {
namespace {

constexpr char kSeen[] = "free memory as seen on the card";
constexpr char kSheet[] = "the maker's data sheet, less 2 % for the driver; not seen here";
constexpr char kNvlink4[] = "measured between two H100: src/dist/README.md; the data sheet says 450";
constexpr char kNvlink3[] = "NVIDIA's data sheet: 600 GB/s of NVLink 3, both directions together";
constexpr char kNvlink800[] = "NVIDIA's data sheet: 400 GB/s of NVLink, both directions together";
constexpr char kPcie4[] = "PCI Express 4.0 x16: 32 GB/s in each direction, a fifth of it lost to packets";
constexpr char kHere[] = "measured: docs/benchmarks.md";
constexpr char kNone[] = "never measured for Fathom";

constexpr char kNoBlackwell[] = "this build has no kernels for it (they are for sm_80 to sm_90)";
constexpr char kNoAmd[] = "there is no backend for AMD's GPUs";
constexpr char kNoAscend[] = "there is no backend for Ascend's processors";

constexpr std::array kGpus = {
    GpuKind{"h200", "NVIDIA H200", {139, kSeen}, {4480, kHere}, {337, kNvlink4}, ""},
    GpuKind{"h100", "NVIDIA H100 80 GB", {78, kSeen}, {3070, kHere}, {337, kNvlink4}, ""},
    GpuKind{"h800", "NVIDIA H800", {78, kSheet}, {0, kNone}, {200, kNvlink800}, ""},
    GpuKind{"h20", "NVIDIA H20", {94, kSheet}, {0, kNone}, {337, kNvlink4}, ""},
    GpuKind{"a100", "NVIDIA A100 80 GB", {78, kSheet}, {0, kNone}, {300, kNvlink3}, ""},
    GpuKind{"a800", "NVIDIA A800 80 GB", {78, kSheet}, {0, kNone}, {200, kNvlink800}, ""},
    GpuKind{"l40s", "NVIDIA L40S", {44, kSheet}, {0, kNone}, {25, kPcie4}, ""},
    GpuKind{"b200", "NVIDIA B200", {176, kSheet}, {0, kNone}, {0, kNone}, kNoBlackwell},
    GpuKind{"mi300x", "AMD MI300X", {188, kSheet}, {0, kNone}, {0, kNone}, kNoAmd},
    GpuKind{"mi350x", "AMD MI350X", {282, kSheet}, {0, kNone}, {0, kNone}, kNoAmd},
    GpuKind{"mi355x", "AMD MI355X", {282, kSheet}, {0, kNone}, {0, kNone}, kNoAmd},
    GpuKind{"atlas800i-a3", "Ascend Atlas 800I A3", {62, kSheet}, {0, kNone}, {0, kNone}, kNoAscend},
};

constexpr char kTwo[] = "measured between two H100: src/dist/README.md";
constexpr char kPeers[] =
    "published: 13 us for 0.5 MB between six H100 (vllm#24111), less a sum of two and the bytes; not "
    "measured";

constexpr Links kLinks = {
    .post_us = {5.5, kTwo},
    .post_gbs = {240, kTwo},
    .meeting_us = {10.2, kTwo},
    .peer_us = {0.6, kPeers},
    .network_gbs = {50, "assumed: one 400 Gb/s card for each GPU"},
    .network_us = {20, "assumed: what a small message between two nodes adds; not measured"},
};

}  // namespace

std::span<const GpuKind> gpu_kinds() {
  return kGpus;
}

const GpuKind* find_gpu(std::string_view name) {
  const auto* found =
      std::find_if(kGpus.begin(), kGpus.end(), [&](const GpuKind& g) { return g.name == name; });
  return found == kGpus.end() ? nullptr : found;
}

std::string gpu_names() {
  std::string names;
  for (const auto& gpu : kGpus) names += (names.empty() ? "" : ", ") + std::string(gpu.name);
  return names;
}

const Links& links() {
  return kLinks;
}

}  // namespace fathom::engine
