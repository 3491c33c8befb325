CREATE TABLE customers (id int PRIMARY KEY, tenant_id text, email text, notes text);
CREATE TABLE orders (id int PRIMARY KEY, customer_id int, amount int);
CREATE TABLE secrets (id int PRIMARY KEY, word text);
CREATE SCHEMA other;
CREATE TABLE other.secrets (id int PRIMARY KEY, word text);
