#include "text/tokenizer/regex.h"

#include <dlfcn.h>
#include <gtest/gtest.h>
#include <regex.h>

#include <string>

namespace fathom::text {
namespace {

// The file that `name` comes from where this program does not define it itself, as it does with a sanitizer.
std::string file_of(const char* name) {
  Dl_info info{};
  void* symbol = dlsym(RTLD_NEXT, name);
  return symbol != nullptr && dladdr(symbol, &info) != 0 ? info.dli_fname : "nowhere";
}

// Oniguruma defines functions of these names for a regex_t of its own. A regexec() of the one with a
// regcomp() of the other waits for ever; GoogleTest's death tests call them.
TEST(PosixRegex, IsTheCLibrarysBesideOniguruma) {
  ASSERT_TRUE(Regex::compile("a").ok());  // Oniguruma is in this program
  for (const char* name : {"regcomp", "regexec", "regerror", "regfree"}) {
    ASSERT_EQ(file_of(name), file_of("qsort")) << name;
  }
  regex_t regex;
  ASSERT_EQ(regcomp(&regex, "^(a|b)$", REG_EXTENDED | REG_NOSUB), 0);
  EXPECT_EQ(regexec(&regex, "b", 0, nullptr, 0), 0);
  EXPECT_EQ(regexec(&regex, "B", 0, nullptr, 0), REG_NOMATCH);
  regfree(&regex);
}

}  // namespace
}  // namespace fathom::text
