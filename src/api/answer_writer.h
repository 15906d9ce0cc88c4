// Passes an answer on to the client, with what every answer carries, and remembers how it began.
#pragma once

#include <functional>
#include <string>
#include <utility>

#include "http/message.h"

namespace fathom::api {

// Used by the handler's thread, as the writer that it wraps.
class AnswerWriter final : public http::ResponseWriter {
 public:
  // `writer` must outlive this. `request_id` is sent as x-request-id where the client sent one, or the answer
  // has none of its own.
  AnswerWriter(http::ResponseWriter& writer, std::string request_id, bool from_client)
      : writer_(writer), request_id_(std::move(request_id)), from_client_(from_client) {}

  void send(http::Response response) override {
    status_ = response.status;
    identify(&response.headers);
    writer_.send(std::move(response));
  }
  bool begin_stream(int status, std::string content_type, http::Headers headers) override {
    status_ = status;
    identify(&headers);
    return writer_.begin_stream(status, std::move(content_type), std::move(headers));
  }
  bool write(std::string_view bytes) override { return writer_.write(bytes); }
  void end() override { writer_.end(); }
  bool client_gone() const override { return writer_.client_gone(); }
  void on_client_gone(std::function<void()> callback) override {
    writer_.on_client_gone(std::move(callback));
  }

  int status() const { return status_; }  // 0: no answer was begun

 private:
  void identify(http::Headers* headers) const {
    if (from_client_) std::erase_if(*headers, [](const auto& header) { return header.first == kName; });
    if (http::find_header(*headers, kName) == nullptr) headers->emplace_back(kName, request_id_);
  }

  static constexpr const char* kName = "x-request-id";
  http::ResponseWriter& writer_;
  const std::string request_id_;
  const bool from_client_;
  int status_ = 0;
};

}  // namespace fathom::api
