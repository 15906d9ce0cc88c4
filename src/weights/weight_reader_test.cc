#include "weights/weight_reader.h"

#include <gtest/gtest.h>

#include "weights/testing.h"

namespace fathom::weights {
namespace {

using testing::image;
using testing::TempFolder;
constexpr auto kMatrix = WeightSpec::Kind::kMatrix;
constexpr auto kPlain = WeightSpec::Kind::kPlain;

struct Given {
  std::string name, dtype, shape;
  int bytes;
};

// A checkpoint with those tensors.
class Written {
 public:
  explicit Written(const std::vector<Given>& tensors) {
    std::string header = "{";
    int offset = 0;
    for (const auto& tensor : tensors) {
      header += (offset == 0 ? "\"" : ",\"") + tensor.name + R"(":{"dtype":")" + tensor.dtype +
                R"(","shape":)" + tensor.shape + R"(,"data_offsets":[)" + std::to_string(offset) + "," +
                std::to_string(offset + tensor.bytes) + "]}";
      offset += tensor.bytes;
    }
    folder_.write("model.safetensors", image(header + "}", static_cast<size_t>(offset)));
  }
  Checkpoint open() const { return Checkpoint::open(folder_.path()).value(); }

 private:
  TempFolder folder_;
};

TEST(WeightReader, AcceptsWhatFits) {
  const Written written({{"w", "F8_E4M3", "[130,2]", 260},
                         {"w_scale_inv", "F32", "[2,1]", 8},
                         {"n", "F16", "[2]", 4},
                         {"extra", "I64", "[1]", 8}});
  const auto checkpoint = written.open();
  WeightReader reader(checkpoint);
  reader.require({"w", {130, 2}, kMatrix});
  reader.require({"n", {2}, kPlain});
  reader.skip([](std::string_view name) { return name == "extra"; });
  const auto result = reader.finish();
  EXPECT_TRUE(result.ok()) << result.error().message;
  EXPECT_EQ(reader.skipped(), 1);
  EXPECT_EQ(reader.required_bytes(), 272);
}

TEST(WeightReader, NamesEverythingInOneError) {
  const Written written({{"shape", "F32", "[2]", 8},
                         {"type", "I32", "[1]", 4},
                         {"fp8_norm", "F8_E4M3", "[4]", 4},
                         {"unscaled", "F8_E4M3", "[1,4]", 4},
                         {"scaled", "F8_E4M3", "[1,4]", 4},
                         {"scaled_scale_inv", "BF16", "[2,1]", 4},
                         {"stranger", "F32", "[1]", 4}});
  const auto checkpoint = written.open();
  WeightReader reader(checkpoint);
  reader.require({"gone", {1}, kPlain});
  reader.require({"shape", {1, 2}, kMatrix});
  reader.require({"type", {1}, kPlain});
  reader.require({"fp8_norm", {4}, kPlain});
  reader.require({"unscaled", {1, 4}, kMatrix});
  reader.require({"scaled", {1, 4}, kMatrix});
  const auto result = reader.finish();
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().code, ErrorCode::kInvalidArgument);
  const std::string& message = result.error().message;
  for (const char* part : {"2 missing: gone, unscaled_scale_inv", "shape ([2], expected [1, 2])",
                           "type (I32, expected F32, BF16 or F16)", "fp8_norm (F8_E4M3",
                           "scaled_scale_inv ([2, 1], expected [1, 1])",
                           "scaled_scale_inv (BF16, expected F32)", "1 unexpected: stranger (F32 [1])"}) {
    EXPECT_NE(message.find(part), std::string::npos) << part << "\nnot in: " << message;
  }
}

TEST(WeightReader, CountsWhatItDoesNotName) {
  const Written written({{"a", "F32", "[1]", 4}});
  const auto checkpoint = written.open();
  WeightReader reader(checkpoint);
  reader.require({"a", {1}, kPlain});
  for (int i = 0; i < 100; ++i) reader.require({"missing" + std::to_string(i), {1}, kPlain});
  const auto message = reader.finish().error().message;
  EXPECT_NE(message.find("100 missing: missing0, "), std::string::npos) << message;
  EXPECT_NE(message.find("and 92 more"), std::string::npos) << message;
}

}  // namespace
}  // namespace fathom::weights
