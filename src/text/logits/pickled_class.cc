#include "text/logits/pickled_class.h"

#include <vector>

namespace fathom::text {
namespace {

constexpr size_t kMaxName = 256;

// The opcodes of pickletools that a class's name needs.
enum Opcode : uint8_t {
  kProto = 0x80,
  kFrame = 0x95,
  kShortBinUnicode = 0x8C,
  kBinUnicode = 'X',
  kMemoize = 0x94,
  kBinPut = 'q',
  kLongBinPut = 'r',
  kPut = 'p',
  kGlobal = 'c',
  kStackGlobal = 0x93,
  kStop = '.',
};

class Reader {
 public:
  explicit Reader(std::string_view bytes) : rest_(bytes) {}

  bool empty() const { return rest_.empty(); }
  // False when fewer bytes are left.
  bool take(size_t count, std::string_view* out) {
    if (rest_.size() < count) return false;
    *out = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return true;
  }
  // A little-endian number.
  bool number(size_t bytes, uint64_t* out) {
    std::string_view digits;
    if (!take(bytes, &digits)) return false;
    *out = 0;
    for (size_t i = bytes; i > 0; --i) *out = *out << 8 | static_cast<uint8_t>(digits[i - 1]);
    return true;
  }
  bool line(std::string_view* out) {
    const size_t end = rest_.find('\n');
    if (end == std::string_view::npos) return false;
    *out = rest_.substr(0, end);
    rest_.remove_prefix(end + 1);
    return true;
  }

 private:
  std::string_view rest_;
};

Error cut_off() {
  return error(ErrorCode::kInvalidArgument, "the pickle is cut off");
}

}  // namespace

Result<PickledClass> read_pickled_class(std::string_view pickle) {
  Reader reader(pickle);
  std::vector<std::string_view> strings;  // on the pickle machine's stack
  PickledClass found;
  bool is_class = false;
  std::string_view byte;
  while (reader.take(1, &byte)) {
    const auto opcode = static_cast<uint8_t>(byte[0]);
    uint64_t number = 0;
    std::string_view text;
    switch (opcode) {
      case kProto:
      case kBinPut:
        if (!reader.number(1, &number)) return cut_off();
        break;
      case kFrame:
        if (!reader.number(8, &number)) return cut_off();
        break;
      case kLongBinPut:
        if (!reader.number(4, &number)) return cut_off();
        break;
      case kPut:
        if (!reader.line(&text)) return cut_off();
        break;
      case kMemoize:
        break;
      case kShortBinUnicode:
      case kBinUnicode:
        if (!reader.number(opcode == kBinUnicode ? 4 : 1, &number)) return cut_off();
        if (number > kMaxName || strings.size() == 2) {
          return error(ErrorCode::kUnsupported, "it holds more than a class's name");
        }
        if (!reader.take(number, &text)) return cut_off();
        strings.push_back(text);
        break;
      case kGlobal: {
        std::string_view name;
        if (!reader.line(&text) || !reader.line(&name)) return cut_off();
        if (text.size() > kMaxName || name.size() > kMaxName) {
          return error(ErrorCode::kUnsupported, "it holds more than a class's name");
        }
        strings = {text, name};
        [[fallthrough]];
      }
      case kStackGlobal:
        if (is_class || strings.size() != 2) {
          return error(ErrorCode::kUnsupported, "it holds more than a class's name");
        }
        found = {std::string(strings[0]), std::string(strings[1])};
        is_class = true;
        break;
      case kStop:
        if (!is_class) return error(ErrorCode::kUnsupported, "it holds no class");
        if (!reader.empty()) return error(ErrorCode::kInvalidArgument, "bytes follow the pickle's end");
        return found;
      default:
        return error(ErrorCode::kUnsupported,
                     "it holds code or objects (pickle opcode 0x{:02x}), not just a class's name", opcode);
    }
  }
  return cut_off();
}

}  // namespace fathom::text
