-- Which life of the server this is. An unlogged table is empty after a crash, and on a standby that took over: the only
-- times after which the identity of a transaction whose commit was not durable may be given out again.
CREATE UNLOGGED TABLE server_life (
    one  BOOLEAN PRIMARY KEY CHECK (one),
    life UUID    NOT NULL
);
