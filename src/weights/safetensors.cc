#include "weights/safetensors.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <unordered_set>
#include <utility>

#include "weights/safetensors_header.h"

namespace fathom::weights {

namespace {

// The format's own limit: a real header of a 671B model is about 20 MB.
constexpr uint64_t kMaxHeaderBytes = 100'000'000;

struct TypeInfo {
  const char* name;
  uint64_t bits;
  std::optional<device::DType> dtype;
};
constexpr TypeInfo kTypes[] = {
    {"F32", 32, device::DType::kF32}, {"BF16", 16, device::DType::kBF16},
    {"F16", 16, device::DType::kF16}, {"F8_E4M3", 8, device::DType::kF8E4M3},
    {"I32", 32, device::DType::kI32}, {"BOOL", 8, std::nullopt},
    {"U8", 8, std::nullopt},          {"I8", 8, std::nullopt},
    {"F8_E5M2", 8, std::nullopt},     {"F8_E8M0", 8, std::nullopt},
    {"F4", 4, std::nullopt},          {"I16", 16, std::nullopt},
    {"U16", 16, std::nullopt},        {"U32", 32, std::nullopt},
    {"F64", 64, std::nullopt},        {"I64", 64, std::nullopt},
    {"U64", 64, std::nullopt},        {"C64", 64, std::nullopt},
};

const TypeInfo* find_type(std::string_view name) {
  const auto* found =
      std::find_if(std::begin(kTypes), std::end(kTypes), [&](const TypeInfo& t) { return t.name == name; });
  return found == std::end(kTypes) ? nullptr : found;
}

// Bytes of a tensor of that shape; nothing on overflow.
std::optional<uint64_t> tensor_bytes(const std::vector<uint64_t>& shape, uint64_t bits) {
  uint64_t count = bits;
  // A zero anywhere makes the tensor empty, but does not excuse an overflow before it.
  for (const uint64_t dim : shape) {
    if (dim > uint64_t{1} << 62 || __builtin_mul_overflow(count, dim, &count)) return std::nullopt;
  }
  return (count + 7) / 8;
}

template <class... Args>
Error corrupt(const std::string& file, fmt::format_string<Args...> format, Args&&... args) {
  return Error{ErrorCode::kDataLoss, file + ": " + fmt::format(format, std::forward<Args>(args)...)};
}

Result<TensorView> check_entry(const HeaderEntry& entry, std::span<const std::byte> data,
                               const std::string& file) {
  TensorView view;
  view.name = entry.name;
  view.dtype_name = entry.dtype;
  for (const uint64_t dim : entry.shape) view.shape.push_back(static_cast<int64_t>(dim));
  if (entry.begin > entry.end) {
    return corrupt(file, "tensor '{}': data_offsets [{}, {}] run backwards", entry.name, entry.begin,
                   entry.end);
  }
  if (entry.end > data.size()) {
    return corrupt(file, "tensor '{}' ends at byte {} of the data, but the file holds {}: truncated?",
                   entry.name, entry.end, data.size());
  }
  view.data = data.data() + entry.begin;
  view.bytes = entry.end - entry.begin;
  if (const TypeInfo* type = find_type(entry.dtype)) {
    view.dtype = type->dtype;
    const auto bytes = tensor_bytes(entry.shape, type->bits);
    if (!bytes || *bytes != view.bytes) {
      return corrupt(file, "tensor '{}': {} [{}] does not take the {} bytes of its data_offsets", entry.name,
                     entry.dtype, fmt::join(entry.shape, ", "), view.bytes);
    }
  }
  return view;
}

// The tensors must tile the data: no byte twice, none left over (a truncated header would leave some).
Result<void> check_tiling(const std::vector<HeaderEntry>& entries, size_t data_bytes,
                          const std::string& file) {
  std::vector<const HeaderEntry*> order;
  for (const auto& entry : entries) order.push_back(&entry);
  std::sort(order.begin(), order.end(), [](const HeaderEntry* a, const HeaderEntry* b) {
    return std::pair(a->begin, a->end) < std::pair(b->begin, b->end);
  });
  uint64_t end = 0;
  for (const HeaderEntry* entry : order) {
    if (entry->begin < end) {
      return corrupt(file, "tensor '{}' overlaps another one at byte {} of the data", entry->name,
                     entry->begin);
    }
    if (entry->begin > end) {
      return corrupt(file, "bytes {} to {} of the data, before tensor '{}', belong to no tensor", end,
                     entry->begin, entry->name);
    }
    end = entry->end;
  }
  if (end != data_bytes) {
    return corrupt(file, "the header accounts for {} bytes of data, the file holds {}", end, data_bytes);
  }
  return {};
}

}  // namespace

std::string describe(const TensorView& tensor) {
  return fmt::format("{} [{}]", tensor.dtype_name, fmt::join(tensor.shape, ", "));
}

Result<std::vector<TensorView>> parse_safetensors(std::span<const std::byte> image, const std::string& file) {
  if (image.size() < 8) return corrupt(file, "{} bytes: too short to be a safetensors file", image.size());
  uint64_t header_bytes = 0;
  for (size_t i = 8; i-- > 0;) header_bytes = (header_bytes << 8) | static_cast<uint8_t>(image[i]);
  if (header_bytes > kMaxHeaderBytes) {
    return corrupt(file, "a header of {} bytes, at most {} are read: not a safetensors file?", header_bytes,
                   kMaxHeaderBytes);
  }
  if (header_bytes > image.size() - 8) {
    return corrupt(file, "the header takes {} bytes, but only {} follow: truncated?", header_bytes,
                   image.size() - 8);
  }
  const std::string_view header(reinterpret_cast<const char*>(image.data()) + 8, header_bytes);
  auto entries = parse_header(header);
  if (!entries.ok()) return corrupt(file, "{}", entries.error().message);

  const auto data = image.subspan(8 + header_bytes);
  std::vector<TensorView> views;
  views.reserve(entries->size());
  std::unordered_set<std::string_view> names;
  for (const auto& entry : *entries) {
    if (!names.insert(entry.name).second) return corrupt(file, "tensor '{}' occurs twice", entry.name);
    FATHOM_ASSIGN(auto view, check_entry(entry, data, file));
    views.push_back(std::move(view));
  }
  FATHOM_TRY(check_tiling(*entries, data.size(), file));
  return views;
}

Result<SafetensorsFile> SafetensorsFile::open(const std::string& path) {
  FATHOM_ASSIGN(auto file, MappedFile::open(path));
  auto tensors = parse_safetensors(file.bytes(), path);
  FATHOM_TRY(file.intact());
  if (!tensors.ok()) return tensors.error();
  return SafetensorsFile(std::move(file), std::move(*tensors));
}

}  // namespace fathom::weights
