#include "app/key_file.h"

#include <sys/stat.h>

#include <fstream>
#include <sstream>

#include "base/log.h"

namespace fathom::app {

bool KeyFile::State::operator==(const State& other) const {
  return inode == other.inode && size == other.size && modified.tv_sec == other.modified.tv_sec &&
         modified.tv_nsec == other.modified.tv_nsec;
}

KeyFile::State KeyFile::look() const {
  struct stat status {};
  if (::stat(path_.c_str(), &status) != 0) return {};
  return {status.st_ino, status.st_size, status.st_mtim};
}

bool KeyFile::changed() const {
  return look() != seen_;
}

Result<std::vector<api::ApiKey>> KeyFile::read() {
  seen_ = look();  // before the contents: what changes meanwhile is read again
  struct stat status {};
  std::ifstream file(path_, std::ios::binary);
  std::ostringstream text;
  if (::stat(path_.c_str(), &status) != 0 || !S_ISREG(status.st_mode) || !file) {
    return error(ErrorCode::kNotFound, "--api-key-file {}: cannot be read as a file", path_);
  }
  if (status.st_size > 0 && !(text << file.rdbuf())) {
    return error(ErrorCode::kNotFound, "--api-key-file {}: cannot be read", path_);
  }
  if ((status.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
    LOG_WARNING("--api-key-file {}: other users of this machine may open it; chmod 600 keeps the keys secret",
                path_);
  }
  Result<std::vector<api::ApiKey>> keys = api::parse_api_keys(text.str());
  if (!keys.ok()) return keys.error().with_context("--api-key-file " + path_);
  return keys;
}

}  // namespace fathom::app
