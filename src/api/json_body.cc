#include "api/json_body.h"

#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

namespace fathom::api {
namespace {

using nlohmann::ordered_json;

// Builds the value and stops at the first limit. ordered_json's own insertion searches the whole object for
// every key; here a hash set finds duplicates and the pair is appended unsearched.
class BoundedBuilder final : public nlohmann::json_sax<ordered_json> {
 public:
  explicit BoundedBuilder(const JsonLimits& limits) : limits_(limits) {}

  bool null() override { return add(nullptr) != nullptr; }
  bool boolean(bool value) override { return add(value) != nullptr; }
  bool number_integer(number_integer_t value) override { return add(value) != nullptr; }
  bool number_unsigned(number_unsigned_t value) override { return add(value) != nullptr; }
  bool number_float(number_float_t value, const string_t& /*text*/) override { return add(value) != nullptr; }
  bool string(string_t& value) override { return add(std::move(value)) != nullptr; }
  bool binary(binary_t& /*value*/) override { return fail("binary values are not JSON"); }

  bool start_object(size_t /*size*/) override { return open(ordered_json::object()); }
  bool end_object() override { return close(); }
  bool start_array(size_t /*size*/) override { return open(ordered_json::array()); }
  bool end_array() override { return close(); }

  bool key(string_t& name) override {
    Frame& frame = open_.back();
    if (frame.keys.size() >= limits_.keys) return fail("an object has more than {} keys", limits_.keys);
    if (!frame.keys.insert(name).second) return fail("the key \"{}\" comes twice in one object", clip(name));
    frame.key = std::move(name);
    return true;
  }

  bool parse_error(size_t /*position*/, const std::string& /*token*/,
                   const nlohmann::detail::exception& exception) override {
    std::string what = exception.what();  // "[json.exception.parse_error.101] parse error at line 1, ..."
    const size_t bracket = what.find("] ");
    return fail("{}", clip(bracket == std::string::npos ? what : what.substr(bracket + 2)));
  }

  std::string& error() { return error_; }
  ordered_json& root() { return root_; }

 private:
  struct Frame {
    ordered_json* node;
    std::string key;
    std::unordered_set<std::string> keys;
  };

  static std::string clip(const std::string& text) {
    if (text.size() <= 200) return text;
    std::string clipped = text.substr(0, 200);
    clipped += "...";
    return clipped;
  }

  template <class... Args>
  bool fail(fmt::format_string<Args...> format, Args&&... args) {
    if (error_.empty()) error_ = fmt::format(format, std::forward<Args>(args)...);
    return false;
  }

  // The place of the new value, or null at a limit. A parent does not grow while a child is open, so the
  // pointers in open_ stay good.
  ordered_json* add(ordered_json value) {
    if (++values_ > limits_.values) {
      fail("the body has more than {} values", limits_.values);
      return nullptr;
    }
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    Frame& frame = open_.back();
    if (frame.node->is_array()) {
      auto& list = frame.node->get_ref<ordered_json::array_t&>();
      return &list.emplace_back(std::move(value));
    }
    auto& object = frame.node->get_ref<ordered_json::object_t&>();
    object.emplace_back(std::move(frame.key), std::move(value));
    return &object.back().second;
  }

  bool open(ordered_json value) {
    if (open_.size() >= static_cast<size_t>(limits_.depth)) {
      return fail("objects and lists are nested deeper than {}", limits_.depth);
    }
    ordered_json* node = add(std::move(value));
    if (node == nullptr) return false;
    open_.push_back({node, {}, {}});
    return true;
  }

  bool close() {
    open_.pop_back();
    return true;
  }

  const JsonLimits limits_;
  ordered_json root_;
  std::vector<Frame> open_;
  size_t values_ = 0;
  std::string error_;
};

}  // namespace

Result<ordered_json> parse_json_object(std::string_view body, const JsonLimits& limits) {
  BoundedBuilder builder(limits);
  const bool good = ordered_json::sax_parse(body.begin(), body.end(), &builder);
  if (!good)
    return error(ErrorCode::kInvalidArgument, "The body is not acceptable JSON: {}", builder.error());
  if (!builder.root().is_object()) {
    return error(ErrorCode::kInvalidArgument, "The body must be a JSON object, got a {}",
                 builder.root().type_name());
  }
  return std::move(builder.root());
}

}  // namespace fathom::api
