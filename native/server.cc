// TensorFlow's own server (gRPC), which other processes run parts of their graphs in. It lives as long as the process: TensorFlow cannot stop one.
//
// TensorFlow listens on all addresses of a machine, whatever it is told, and nobody is asked who they are. So its libraries' calls of bind() come
// here first, which puts the address that was asked for in the place of "all"; where that cannot be seen to have worked nothing is served.
#include "server.h"

#include <arpa/inet.h>
#include <elf.h>
#include <errno.h>
#include <link.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <tensorflow/c/c_api.h>
#include <unistd.h>

#include <atomic>
#include <string>

#include "exports.h"
#include "session_work.h"

extern "C" {
typedef struct TF_Server TF_Server;
TF_Server* TF_NewServer(const void* proto, size_t proto_len, TF_Status* status);
void TF_ServerStart(TF_Server* server, TF_Status* status);
}

namespace {

// The address that is bound for that of all, as IPv6 has it (one of IPv4 is mapped), and the port that this is for.
in6_addr bound_address;
std::atomic<int> bound_port{0};
std::atomic<int> times_bound{0};

int BindOne(int socket, const sockaddr* address, socklen_t length) {
  const in_port_t port = htons(static_cast<uint16_t>(bound_port.load()));
  if (port != 0 && address->sa_family == AF_INET6 && length >= sizeof(sockaddr_in6)) {
    sockaddr_in6 one;
    memcpy(&one, address, sizeof(one));
    if (one.sin6_port == port && IN6_IS_ADDR_UNSPECIFIED(&one.sin6_addr)) {
      one.sin6_addr = bound_address;
      times_bound++;
      return bind(socket, reinterpret_cast<sockaddr*>(&one), sizeof(one));
    }
  }
  if (port != 0 && address->sa_family == AF_INET && length >= sizeof(sockaddr_in)) {
    sockaddr_in one;
    memcpy(&one, address, sizeof(one));
    if (one.sin_port == port && one.sin_addr.s_addr == htonl(INADDR_ANY)) {
      if (!IN6_IS_ADDR_V4MAPPED(&bound_address)) {
        errno = EADDRNOTAVAIL;
        return -1;
      }
      memcpy(&one.sin_addr, bound_address.s6_addr + 12, 4);
      times_bound++;
      return bind(socket, reinterpret_cast<sockaddr*>(&one), sizeof(one));
    }
  }
  return bind(socket, address, length);
}

#if defined(__x86_64__)
constexpr unsigned kSlots[] = {R_X86_64_JUMP_SLOT, R_X86_64_GLOB_DAT};
#elif defined(__aarch64__)
constexpr unsigned kSlots[] = {R_AARCH64_JUMP_SLOT, R_AARCH64_GLOB_DAT};
#else
constexpr unsigned kSlots[] = {0, 0};
#endif

// Makes a library call BindOne() for bind(): the places of its table that hold the address of bind(), by the linker's own notes.
int Redirect(dl_phdr_info* info, size_t, void* found) {
  if (!info->dlpi_name || !strstr(info->dlpi_name, "/libtensorflow")) return 0;
  const ElfW(Dyn)* dynamic = nullptr;
  for (int i = 0; i < info->dlpi_phnum; i++)
    if (info->dlpi_phdr[i].p_type == PT_DYNAMIC)
      dynamic = reinterpret_cast<const ElfW(Dyn)*>(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
  if (!dynamic) return 0;
  const ElfW(Sym)* symbols = nullptr;
  const char* names = nullptr;
  struct Table {
    const ElfW(Rela)* from = nullptr;
    size_t bytes = 0;
  } calls, others;
  for (; dynamic->d_tag != DT_NULL; dynamic++) {
    const auto address = dynamic->d_un.d_ptr;
    switch (dynamic->d_tag) {
      case DT_SYMTAB: symbols = reinterpret_cast<const ElfW(Sym)*>(address); break;
      case DT_STRTAB: names = reinterpret_cast<const char*>(address); break;
      case DT_JMPREL: calls.from = reinterpret_cast<const ElfW(Rela)*>(address); break;
      case DT_PLTRELSZ: calls.bytes = dynamic->d_un.d_val; break;
      case DT_RELA: others.from = reinterpret_cast<const ElfW(Rela)*>(address); break;
      case DT_RELASZ: others.bytes = dynamic->d_un.d_val; break;
      default: break;
    }
  }
  if (!symbols || !names) return 0;
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  for (const Table& table : {calls, others}) {
    for (size_t i = 0; table.from && i < table.bytes / sizeof(ElfW(Rela)); i++) {
      const ElfW(Rela)& entry = table.from[i];
      const unsigned type = static_cast<unsigned>(ELF64_R_TYPE(entry.r_info));
      if (type != kSlots[0] && type != kSlots[1]) continue;
      if (strcmp(names + symbols[ELF64_R_SYM(entry.r_info)].st_name, "bind") != 0) continue;
      void** slot = reinterpret_cast<void**>(info->dlpi_addr + entry.r_offset);
      void* start = reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(slot) & ~(page - 1));
      if (mprotect(start, page, PROT_READ | PROT_WRITE) != 0) continue;
      *slot = reinterpret_cast<void*>(&BindOne);
      ++*static_cast<int*>(found);
    }
  }
  return 0;
}

std::string StringOf(napi_env env, napi_value value) {
  size_t length = 0;
  napi_get_value_string_utf8(env, value, nullptr, 0, &length);
  std::string text(length, '\0');
  napi_get_value_string_utf8(env, value, &text[0], length + 1, &length);
  return text;
}

bool AddressOf(const std::string& text, in6_addr* address) {
  if (inet_pton(AF_INET6, text.c_str(), address) == 1) return true;
  return inet_pton(AF_INET6, ("::ffff:" + text).c_str(), address) == 1;
}

// serve(definition, address, port): a ServerDef's bytes; where it listens
napi_value Serve(napi_env env, napi_callback_info info) {
  size_t count = 3;
  napi_value args[3];
  napi_get_cb_info(env, info, &count, args, nullptr, nullptr);
  void* data = nullptr;
  size_t bytes = 0;
  napi_get_typedarray_info(env, args[0], nullptr, &bytes, &data, nullptr, nullptr);
  int32_t port = 0;
  napi_get_value_int32(env, args[2], &port);
  const auto fail = [&](const std::string& why) {
    napi_throw_error(env, nullptr, why.c_str());
    return nullptr;
  };
  const std::string address = StringOf(env, args[1]);
  if (!AddressOf(address, &bound_address)) return fail("'" + address + "' is no address of this machine");
  static int redirected = 0;
  if (redirected == 0) dl_iterate_phdr(Redirect, &redirected);
  if (redirected == 0) return fail("TensorFlow would listen on all addresses of this machine: it cannot be kept to one here");
  bound_port = port;
  TF_Status* status = TF_NewStatus();
  TF_Server* server = TF_NewServer(data, bytes, status);
  // its threads use what destructors would destroy: see Leave() in session.cc
  under_way++;
  const bool kept = times_bound > 0;
  if (TF_GetCode(status) == TF_OK && kept) TF_ServerStart(server, status);
  const std::string why = TF_GetCode(status) == TF_OK ? "" : TF_Message(status);
  TF_DeleteStatus(status);
  if (!why.empty()) return fail(why);
  if (!kept) {
    // it may listen to everybody: nothing that was asked for
    fputs("mamba2: TensorFlow listens on all addresses of this machine; this process ends\n", stderr);
    _exit(1);
  }
  return nullptr;
}

}  // namespace

void ExportServer(napi_env env, napi_value exports) { Export(env, exports, "serve", Serve); }
