#include "ops/cuda_testing.h"
#include "ops/gather_rows/cuda.h"

namespace fathom::ops::cuda {
namespace {

using device::DType;
using device::cuda::testing::DeviceArray;

// Copies: no rounding. Rows that are left as they are keep the poison.
TEST(GatherRowsCuda, TakesEachRowToItsPlace) {
  FATHOM_GPU_OR_SKIP(stream);
  std::mt19937 random(5);
  for (const DType type : {DType::kF32, DType::kBF16}) {
    for (const int64_t width : {8, 64, 1536, 7168}) {
      for (const int64_t gap : {0, 16}) {
        for (const bool scatters : {false, true}) {
          for (const int32_t limit : {-1, 0, 11}) {
            constexpr int64_t kFrom = 23, kRows = 17, kTo = 40;
            const auto x = rounded(type, random_floats(kFrom * width, random));
            const auto before = rounded(type, random_floats(kTo * width, random));
            const DeviceMatrix device_x(type, kFrom, width, x, gap);
            const DeviceMatrix device_y(type, kTo, width, before, gap);
            std::vector<int32_t> ids, to;
            for (int64_t r = 0; r < kRows; ++r) {
              ids.push_back(r % 5 == 3 ? -1 : static_cast<int32_t>(random() % kFrom));
              to.push_back(r % 7 == 2 ? -1 : static_cast<int32_t>((r * 11 + 5) % kTo));  // distinct
            }
            const DeviceArray<int32_t> device_ids(ids), device_to(to), count(std::vector<int32_t>{limit});
            GatherRowsArgs args;
            args.x = device_x.view();
            args.y = device_y.view().first_rows(kRows);
            args.ids = device_ids.data();
            args.to = scatters ? device_to.data() : nullptr;
            args.count = limit >= 0 ? count.data() : nullptr;
            gather_rows(stream, args);

            auto wanted = before;
            for (int64_t r = 0; r < (limit >= 0 ? limit : kRows); ++r) {
              const int64_t from = ids[static_cast<size_t>(r)];
              const int64_t at = scatters ? to[static_cast<size_t>(r)] : r;
              if (from < 0 || at < 0) continue;
              std::copy_n(x.begin() + from * width, width, wanted.begin() + at * width);
            }
            expect_same(device_y.get(), wanted, width,
                        fmt::format("width {} gap {} scatters {} limit {}", width, gap, scatters, limit));
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace fathom::ops::cuda
