// JSON Schema to a grammar: whatever the grammar reads is valid. Not everything valid is read: members come
// in the schema's order, and what a schema leaves open is closed (members that it does not list, unless it
// says so).
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "text/grammar/json_rules.h"

namespace fathom::text {

// Used while one grammar is built. `root` must outlive it.
class JsonSchema {
 public:
  static constexpr size_t kMaxRules = 512;
  static constexpr int kMaxDepth = 64;
  static constexpr size_t kMaxMerged = 256;  // allOf
  static constexpr size_t kMaxMembers = 1000;

  // `best_effort`: what is not enforced is dropped, and the rest of the schema kept. Else it is refused.
  JsonSchema(GrammarBuilder& builder, JsonRules& rules, const nlohmann::ordered_json& root,
             bool best_effort = false)
      : builder_(builder), rules_(rules), root_(root), best_effort_(best_effort) {}

  // The grammar of the whole schema. kInvalidArgument names the keyword that is wrong, and kUnsupported the
  // one that is not enforced, with its path.
  Result<Fragment> compile();

 private:
  using Json = nlohmann::ordered_json;
  enum Kind : unsigned {
    kObject = 1,
    kArray = 2,
    kString = 4,
    kNumber = 8,
    kBoolean = 16,
    kNull = 32,
    kAny = 63
  };

  Fragment schema(const Json& schema, const std::string& path);
  Fragment typed(const Json& schema, const std::string& type, const std::string& path);
  Fragment values(const Json& schema, const std::string& path);
  Fragment any_of(const Json& schema, const char* keyword, const std::string& path);
  Fragment all_of(const Json& schema, const std::string& path);
  Fragment reference(const Json& schema, const std::string& path);
  Fragment object(const Json& schema, const std::string& path);
  Fragment array(const Json& schema, const std::string& path);
  Fragment string(const Json& schema, const std::string& path);
  Fragment number(const Json& schema, bool integer, const std::string& path);

  const Json* resolve(const std::string& pointer) const;
  unsigned kinds(const Json& schema, int depth) const;
  struct Marks;
  Marks marks(const Json& branch) const;
  static bool apart(const Marks& a, const Marks& b);
  // Refuses keywords beside the known ones.
  void check_keywords(const Json& schema, const std::string& path);
  int count(const Json& schema, const char* keyword, int fallback, const std::string& path);
  Fragment fail(ErrorCode code, std::string path, std::string message);

  GrammarBuilder& builder_;
  JsonRules& rules_;
  const Json& root_;
  const bool best_effort_;
  std::map<std::string, int32_t> references_;  // pointer -> rule
  size_t rules_made_ = 0;
  size_t merged_ = 0;
  int depth_ = 0;
  std::optional<Error> error_;
};

}  // namespace fathom::text
