/* host.c - a C program that loads a C++ plugin (host PLUGIN), or calls operator new without one (host). */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    if (argc > 1) {
        void *plugin = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
        if (!plugin) {
            fprintf(stderr, "%s\n", dlerror());
            return 1;
        }
        int (*run)(void) = (int (*)(void))dlsym(plugin, "plugin_run");
        printf("%d\n", run());
        return 0;
    }
    void *(*plain)(size_t) = (void *(*)(size_t))dlsym(RTLD_DEFAULT, "_Znwm");
    void *(*nothrow)(size_t, void *) = (void *(*)(size_t, void *))dlsym(RTLD_DEFAULT, "_ZnwmRKSt9nothrow_t");
    void (*delete)(void *) = (void (*)(void *))dlsym(RTLD_DEFAULT, "_ZdlPv");
    delete(plain(100));
    printf("%d\n", nothrow(PTRDIFF_MAX, NULL) == NULL);
    fflush(stdout);
    plain(PTRDIFF_MAX);
    return 3;
}
