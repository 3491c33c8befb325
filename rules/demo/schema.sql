-- The demo's tables. The quickstart creates them; `portcullis rules check` reads them, so that
-- rules can be checked without a database.
CREATE TABLE customers (
    id         int  PRIMARY KEY,
    tenant_id  text NOT NULL,
    name       text NOT NULL,
    email      text NOT NULL,
    card_no    text NOT NULL,
    birth_date date,
    city       text,
    notes      text
);

CREATE TABLE orders (
    id          int            PRIMARY KEY,
    tenant_id   text           NOT NULL,
    customer_id int            NOT NULL REFERENCES customers (id),
    amount      numeric(10, 2) NOT NULL,
    status      text           NOT NULL,
    placed_at   timestamptz    NOT NULL
);
