#include "engine/bench_ops.h"

#include <cstdio>

#include "app/args.h"

namespace fathom::app {

int run_bench_ops() {
  const auto begin = [](const engine::OpCeilings& ceilings) {
    std::printf(
        "read bandwidth %.0f GB/s, bf16 peak %.0f TFLOP/s; a figure's share is of the one that bounds it\n",
        ceilings.read_gbs, ceilings.bf16_tflops);
    std::printf("%-22s %-38s %9s %7s %8s %6s  %s\n", "op", "shape", "us", "GB/s", "TFLOP/s", "share",
                "peer on an H100, and its time over ours");
  };
  const auto each = [](const engine::OpFigure& f) {
    std::printf("%-22s %-38s %9.2f %7.0f %8.1f %5.0f%%", f.op.c_str(), f.shape.c_str(), f.us, f.gbs, f.tflops,
                f.share * 100);
    if (f.peer_us > 0) std::printf("  %s %.1f us, %.2f", f.peer, f.peer_us, f.peer_us / f.us);
    std::printf("\n");
    std::fflush(stdout);
  };
  const auto done = engine::bench_ops(begin, each);
  if (done.ok()) return 0;
  std::fprintf(stderr, "fathom bench ops: %s\n", done.error().message.c_str());
  return 1;
}

}  // namespace fathom::app
