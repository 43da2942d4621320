// Every form of operator new and delete, what happens when memory is out, and replaced primary forms (-DREPLACED).
// One case a run: news CASE. Prints "ok" at the end.
#include <dlfcn.h>
#include <malloc.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>
#include <vector>

#define REQUIRE(cond) \
    ((cond) ? (void)0 : (std::fprintf(stderr, "line %d: not so: %s\n", __LINE__, #cond), std::exit(1)))

static bool (*owns)(const void *);
static const std::size_t too_many = PTRDIFF_MAX - 4096; // volatile would hide it as well; noinline below does
static int handler_calls;

__attribute__((noinline)) static std::size_t hidden(std::size_t n)
{
    __asm__ volatile("" : "+r"(n));
    return n;
}

struct alignas(256) wide {
    char text[300];
};

static void forms()
{
    for (std::size_t n : {std::size_t(0), std::size_t(1), std::size_t(24), std::size_t(5000), std::size_t(300000)}) {
        n = hidden(n);
        std::vector<void *> all = {
            ::operator new(n),
            ::operator new[](n),
            ::operator new(n, std::nothrow),
            ::operator new[](n, std::nothrow),
            ::operator new(n, std::align_val_t(128)),
            ::operator new[](n, std::align_val_t(128)),
            ::operator new(n, std::align_val_t(128), std::nothrow),
            ::operator new[](n, std::align_val_t(128), std::nothrow),
        };
        for (std::size_t i = 0; i < all.size(); i++) {
            REQUIRE(all[i] && owns(all[i]) && malloc_usable_size(all[i]) >= n);
            REQUIRE(i < 4 || reinterpret_cast<std::uintptr_t>(all[i]) % 128 == 0);
            std::memset(all[i], 7, n);
            for (std::size_t j = 0; j < i; j++)
                REQUIRE(all[i] != all[j]);
        }
        ::operator delete(all[0]);
        ::operator delete[](all[1], n);
        ::operator delete(all[2], std::nothrow);
        ::operator delete[](all[3], std::nothrow);
        ::operator delete(all[4], std::align_val_t(128));
        ::operator delete[](all[5], n, std::align_val_t(128));
        ::operator delete(all[6], std::align_val_t(128), std::nothrow);
        ::operator delete[](all[7], std::align_val_t(128), std::nothrow);
        ::operator delete(::operator new(n), n);
        ::operator delete[](::operator new[](n));
        ::operator delete(::operator new(n, std::align_val_t(64)), n, std::align_val_t(64));
        ::operator delete[](::operator new[](n, std::align_val_t(64)), std::align_val_t(64));
    }
    for (int i = 0; i < 1000; i++) {
        std::vector<std::string> words(10, std::string(std::size_t(i), 'x'));
        wide *w = new wide[3];
        REQUIRE(owns(words.data()) && reinterpret_cast<std::uintptr_t>(w) % 256 == 0);
        delete[] w;
    }
}

template <typename F> static bool throws(F f)
{
    try {
        f();
    } catch (const std::bad_alloc &) {
        return true;
    }
    return false;
}

static void out_of_memory()
{
    std::size_t n = hidden(too_many);
    REQUIRE(throws([=] { return ::operator new(n); }));
    REQUIRE(throws([=] { return ::operator new[](n); }));
    REQUIRE(throws([=] { return ::operator new(n, std::align_val_t(64)); }));
    REQUIRE(throws([=] { return ::operator new[](n, std::align_val_t(64)); }));
    REQUIRE(!::operator new(n, std::nothrow) && !::operator new[](n, std::nothrow));
    REQUIRE(!::operator new(n, std::align_val_t(64), std::nothrow));
    REQUIRE(!::operator new[](n, std::align_val_t(64), std::nothrow));
    REQUIRE(throws([=] { std::vector<char> v(n); }));
}

static void give_up_at_three()
{
    if (++handler_calls == 3)
        std::set_new_handler(nullptr);
}

static void throw_from_handler()
{
    handler_calls++;
    throw std::bad_alloc();
}

static void handler()
{
    std::size_t n = hidden(too_many);
    std::set_new_handler(give_up_at_three);
    REQUIRE(throws([=] { return ::operator new(n); }) && handler_calls == 3);
    handler_calls = 0;
    std::set_new_handler(give_up_at_three);
    REQUIRE(!::operator new(n, std::nothrow) && handler_calls == 3);
    handler_calls = 0;
    std::set_new_handler(throw_from_handler);
    REQUIRE(throws([=] { return ::operator new[](n); }) && handler_calls == 1);
    REQUIRE(!::operator new[](n, std::nothrow) && handler_calls == 2);
    REQUIRE(!::operator new(n, std::align_val_t(64), std::nothrow) && handler_calls == 3);
}

#ifdef REPLACED
// As the standard allows: these two only. A header in front of each block shows where it came from.
static int news, deletes;

void *operator new(std::size_t n)
{
    news++;
    auto *p = static_cast<char *>(std::malloc(n + 32));
    if (!p)
        throw std::bad_alloc();
    std::memcpy(p, "replaced", 8);
    return p + 32;
}

void operator delete(void *p) noexcept
{
    if (!p)
        return;
    deletes++;
    char *start = static_cast<char *>(p) - 32;
    REQUIRE(std::memcmp(start, "replaced", 8) == 0);
    std::free(start);
}

static void replaced()
{
    int before = news;
    std::size_t n = hidden(100);
    ::operator delete(::operator new(n), n);
    ::operator delete[](::operator new[](n), n);
    ::operator delete[](::operator new[](n));
    ::operator delete(::operator new(n, std::nothrow), std::nothrow);
    ::operator delete[](::operator new[](n, std::nothrow), std::nothrow);
    REQUIRE(news - before == 5);
    { std::vector<std::string> words(100, std::string(100, 'x')); }
    REQUIRE(news == deletes + 1); // what this function was called with is not freed
    ::operator delete(::operator new(n, std::align_val_t(64)), std::align_val_t(64)); // not replaced: ours
    REQUIRE(news == deletes + 1);
}
#else
static void replaced()
{
    std::exit(2);
}
#endif

int main(int argc, char **argv)
{
    owns = reinterpret_cast<bool (*)(const void *)>(dlsym(RTLD_DEFAULT, "pa_owns"));
    REQUIRE(owns != nullptr);
    std::string which = argc > 1 ? argv[1] : "";
    if (which == "forms")
        forms();
    else if (which == "out_of_memory")
        out_of_memory();
    else if (which == "handler")
        handler();
    else if (which == "replaced") {
        std::string *kept = new std::string(100, 'k');
        std::string().swap(*kept); // its text goes, the object stays: one block
        replaced();
    } else
        return 2;
    std::puts("ok");
    return 0;
}
