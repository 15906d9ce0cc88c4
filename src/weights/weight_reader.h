// Holds a checkpoint to what a model needs: every tensor that is missing, has the wrong shape or type, or
// that nobody asked for goes into one error.
//
//   WeightReader reader(checkpoint);
//   for (spec : model's table) reader.require(spec);
//   reader.skip([](std::string_view name) { ... });   // known, and not wanted
//   FATHOM_TRY(reader.finish());
#pragma once

#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "weights/checkpoint.h"

namespace fathom::weights {

// One tensor that a model needs.
struct WeightSpec {
  enum class Kind : uint8_t {
    kMatrix,  // F32, BF16, F16, or F8_E4M3 with its "<name>_scale_inv": F32 [ceil(n / 128), ceil(k / 128)]
    kPlain,   // F32, BF16 or F16: norms, the gate, the embedding
  };
  std::string name;  // as in the checkpoint: "model.norm.weight"
  std::vector<int64_t> shape;
  Kind kind = Kind::kPlain;
};

class WeightReader {
 public:
  explicit WeightReader(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}

  void require(const WeightSpec& spec);
  // Tensors that nobody required and that `known` accepts are no error; they are counted.
  void skip(std::function<bool(std::string_view name)> known) { known_ = std::move(known); }
  // kInvalidArgument naming them all (the first of each kind, and how many more).
  Result<void> finish();

  int64_t required_bytes() const { return required_bytes_; }
  int64_t skipped() const { return skipped_; }  // after finish()

 private:
  void require_scale(const WeightSpec& spec);

  const Checkpoint& checkpoint_;
  std::set<std::string, std::less<>> required_;
  std::function<bool(std::string_view)> known_;
  std::vector<std::string> missing_, misshaped_, mistyped_;
  int64_t required_bytes_ = 0;
  int64_t skipped_ = 0;
};

// The name of an FP8 matrix's block scales: "x.weight" -> "x.weight_scale_inv".
inline std::string scale_name(std::string_view weight) {
  return std::string(weight) + "_scale_inv";
}

}  // namespace fathom::weights
