#include "weights/weight_reader.h"

#include <fmt/ranges.h>

#include "base/math.h"

namespace fathom::weights {

namespace {

constexpr size_t kNamed = 8;

// "3 missing (a, b, c)"
void append(std::string& message, const std::vector<std::string>& items, std::string_view what) {
  if (items.empty()) return;
  if (!message.empty()) message += "; ";
  const size_t named = std::min(items.size(), kNamed);
  message += fmt::format("{} {}: {}", items.size(), what,
                         fmt::join(items.begin(), items.begin() + static_cast<std::ptrdiff_t>(named), ", "));
  if (items.size() > named) message += fmt::format(" and {} more", items.size() - named);
}

}  // namespace

void WeightReader::require(const WeightSpec& spec) {
  required_.insert(spec.name);
  const TensorView* tensor = checkpoint_.find(spec.name);
  if (tensor == nullptr) {
    missing_.push_back(spec.name);
    return;
  }
  required_bytes_ += static_cast<int64_t>(tensor->bytes);
  if (tensor->shape != spec.shape) {
    misshaped_.push_back(fmt::format("{} ([{}], expected [{}])", spec.name, fmt::join(tensor->shape, ", "),
                                     fmt::join(spec.shape, ", ")));
  }
  using device::DType;
  const bool fp8 = tensor->dtype == DType::kF8E4M3;
  const bool plain =
      tensor->dtype == DType::kF32 || tensor->dtype == DType::kBF16 || tensor->dtype == DType::kF16;
  if (!plain && !(fp8 && spec.kind == WeightSpec::Kind::kMatrix)) {
    mistyped_.push_back(fmt::format("{} ({}, expected F32, BF16{})", spec.name, tensor->dtype_name,
                                    spec.kind == WeightSpec::Kind::kMatrix ? ", F16 or F8_E4M3" : " or F16"));
  }
  if (fp8 && spec.kind == WeightSpec::Kind::kMatrix) require_scale(spec);
}

void WeightReader::require_scale(const WeightSpec& spec) {
  const std::string name = scale_name(spec.name);
  required_.insert(name);
  const TensorView* scale = checkpoint_.find(name);
  if (scale == nullptr) {
    missing_.push_back(name);
    return;
  }
  required_bytes_ += static_cast<int64_t>(scale->bytes);
  const std::vector<int64_t> expected{ceil_div<int64_t>(spec.shape[0], 128),
                                      ceil_div<int64_t>(spec.shape[1], 128)};
  if (scale->shape != expected) {
    misshaped_.push_back(fmt::format("{} ([{}], expected [{}])", name, fmt::join(scale->shape, ", "),
                                     fmt::join(expected, ", ")));
  }
  if (scale->dtype != device::DType::kF32) {
    mistyped_.push_back(fmt::format("{} ({}, expected F32)", name, scale->dtype_name));
  }
}

Result<void> WeightReader::finish() {
  std::vector<std::string> unexpected;
  for (const auto& [name, tensor] : checkpoint_.tensors()) {
    if (required_.contains(name)) continue;
    if (known_ && known_(name)) {
      ++skipped_;
    } else {
      unexpected.push_back(fmt::format("{} ({})", name, describe(*tensor)));
    }
  }
  std::string message;
  append(message, missing_, "missing");
  append(message, misshaped_, "of a wrong shape");
  append(message, mistyped_, "of a wrong type");
  append(message, unexpected, "unexpected");
  if (message.empty()) return {};
  return error(ErrorCode::kInvalidArgument, "the weights do not fit config.json: {}", message);
}

}  // namespace fathom::weights
