// The file of --api-key-file, read again when it changes.
#pragma once

#include <sys/types.h>
#include <ctime>
#include <string>
#include <vector>

#include "api/tenants.h"
#include "base/result.h"

namespace fathom::app {

// Used by one thread at a time.
class KeyFile {
 public:
  explicit KeyFile(std::string path) : path_(std::move(path)) {}

  // The keys; remembers which state of the file they are of. Warns where others may read it.
  Result<std::vector<api::ApiKey>> read();
  // Has the file become another since it was read?
  bool changed() const;
  const std::string& path() const { return path_; }

 private:
  struct State {
    ino_t inode = 0;
    off_t size = 0;
    timespec modified{};
    bool operator==(const State& other) const;
  };
  State look() const;

  const std::string path_;
  State seen_;
};

}  // namespace fathom::app
