// Takes fields out of a JSON object with their type, range and default, and collects everything that is wrong
// with them, so that one error can name it all.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace fathom::model {

class FieldReader {
 public:
  // `where` stands before the names in messages: "" or "rope_scaling.". Problems go to `problems`.
  FieldReader(const nlohmann::json& object, std::string where, std::vector<std::string>& problems)
      : object_(object), where_(std::move(where)), problems_(problems) {}

  // Absent and null are the same. Null when there is no such field.
  const nlohmann::json* find(std::string_view name) const;

  // There is such a field, be it null.
  bool has(std::string_view name) const { return object_.contains(name); }

  int64_t integer(std::string_view name, int64_t low, int64_t high, std::optional<int64_t> otherwise);
  double number(std::string_view name, double low, double high, std::optional<double> otherwise);
  bool boolean(std::string_view name, bool otherwise);
  std::string text(std::string_view name, std::string_view otherwise);
  // One of `known`; else a problem that lists them.
  std::string choice(std::string_view name, std::string_view otherwise,
                     std::initializer_list<std::string_view> known);
  // A number or a list of numbers in [0, 2^31): token ids.
  std::vector<int32_t> token_ids(std::string_view name);
  std::vector<std::string> texts(std::string_view name);

  void problem(std::string message) { problems_.push_back(std::move(message)); }
  std::string full_name(std::string_view name) const { return where_ + std::string(name); }

 private:
  // A problem: "hidden_size: expected ..., got -3".
  void unexpected(std::string_view name, const std::string& expected, const nlohmann::json& got);

  const nlohmann::json& object_;
  std::string where_;
  std::vector<std::string>& problems_;
};

}  // namespace fathom::model
