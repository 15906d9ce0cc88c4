#include "app/local_exchange.h"

#include <utility>

namespace fathom::app {
namespace {

class LocalWriter final : public http::ResponseWriter {
 public:
  explicit LocalWriter(const std::function<bool(std::string_view)>& on_bytes) : on_bytes_(on_bytes) {}

  void send(http::Response response) override {
    answer_.status = response.status;
    answer_.body = std::move(response.body);
  }
  bool begin_stream(int status, std::string, http::Headers) override {
    answer_.status = status;
    return true;
  }
  bool write(std::string_view bytes) override {
    if (gone_) return false;
    gone_ = on_bytes_ && !on_bytes_(bytes);
    return !gone_;
  }
  void end() override {}
  bool client_gone() const override { return gone_; }
  // The client lives on the handler's own thread: it cannot vanish while the handler does anything but write.
  void on_client_gone(std::function<void()> callback) override {
    if (gone_ && callback) callback();
  }

  LocalAnswer take() { return std::move(answer_); }

 private:
  const std::function<bool(std::string_view)>& on_bytes_;
  LocalAnswer answer_;
  bool gone_ = false;
};

}  // namespace

LocalAnswer post(api::Service& service, const std::string& path, std::string body,
                 const std::function<bool(std::string_view)>& on_bytes) {
  http::Request request;
  request.method = "POST";
  request.path = path;
  request.headers = {{"Content-Type", "application/json"}};
  request.body = std::move(body);
  request.remote = "local";
  LocalWriter writer(on_bytes);
  service.handle(request, writer);
  return writer.take();
}

}  // namespace fathom::app
