/* puppet.h - threads that run one step at a time on demand and can be told to stop at a yield point (base/yield.h):
 * the hook parks them there until they are let go.  So every race is laid out on purpose, and nothing sleeps.
 */
#ifndef PA_PUPPET_H
#define PA_PUPPET_H

#include "base/yield.h"
#include "stress.h"

enum { NO_POINT = -1 };

typedef struct puppet {
    pthread_t id;
    sem_t work, done;     /* one step to do; it is done */
    sem_t parked, go_on;  /* standing at the yield point; may leave it */
    _Atomic int stop_at;  /* yield point, once */
    void *(*step)(struct puppet *self, void *argument);
    void *argument, *result;
    const char *_Atomic where;
} puppet;

static _Thread_local puppet *self;

static inline void hook(int point)
{
    int expected = point;
    if (!self || !atomic_compare_exchange_strong(&self->stop_at, &expected, NO_POINT))
        return;
    sem_post(&self->parked);
    while (sem_wait(&self->go_on) != 0) {
    }
}

static inline void wait_for(sem_t *s)
{
    while (sem_wait(s) != 0) {
    }
}

static inline void *puppet_main(void *argument)
{
    self = argument;
    for (;;) {
        wait_for(&self->work);
        if (!self->step)
            return NULL;
        self->result = self->step(self, self->argument);
        sem_post(&self->done);
    }
}

static inline puppet *new_puppet(puppet *p)
{
    *p = (puppet){.stop_at = NO_POINT};
    REQUIRE(sem_init(&p->work, 0, 0) == 0 && sem_init(&p->done, 0, 0) == 0);
    REQUIRE(sem_init(&p->parked, 0, 0) == 0 && sem_init(&p->go_on, 0, 0) == 0);
    REQUIRE(pthread_create(&p->id, NULL, puppet_main, p) == 0);
    return p;
}

static inline void begin(puppet *p, void *(*step)(puppet *, void *), void *argument)
{
    p->step = step;
    p->argument = argument;
    sem_post(&p->work);
}

static inline void *finish(puppet *p)
{
    wait_for(&p->done);
    REQUIRE(atomic_load(&p->stop_at) == NO_POINT, "it never came to its yield point");
    return p->result;
}

static inline void *run(puppet *p, void *(*step)(puppet *, void *), void *argument)
{
    begin(p, step, argument);
    return finish(p);
}

/* Starts a step and returns when the puppet stands at the point. */
static inline void run_to(puppet *p, int point, void *(*step)(puppet *, void *), void *argument)
{
    atomic_store(&p->stop_at, point);
    begin(p, step, argument);
    wait_for(&p->parked);
}

static inline void let_go(puppet *p)
{
    sem_post(&p->go_on);
}

static inline void join(puppet *p)
{
    REQUIRE(pthread_join(p->id, NULL) == 0);
}

static inline void dismiss(puppet *p)
{
    begin(p, NULL, NULL);
    join(p);
}

/* The thread ends; it is parked in its destructor, before it gave anything back. */
static inline void exit_to(puppet *p, int point)
{
    atomic_store(&p->stop_at, point);
    begin(p, NULL, NULL);
    wait_for(&p->parked);
}

#endif
