-- Sample rows for the demo: two tenants. The people are invented, the mail domains are reserved
-- for documentation, the card numbers are the payment industry's published test numbers.
INSERT INTO customers (id, tenant_id, name, email, card_no, birth_date, city, notes) VALUES
  (1,  'acme',   'Ada Wagner',       'ada.wagner@example.com',      '4111 1111 1111 1111', '1984-03-12', 'Hamburg',   'prefers calls after 17:00'),
  (2,  'acme',   'Boris Novak',      'boris.novak@example.com',     '5555-5555-5555-4444', '1979-11-02', 'Prague',    'disputed invoice 2291, angry'),
  (3,  'globex', 'Chloe Martin',     'chloe.martin@example.org',    '378282246310005',     '1991-07-25', 'Lyon',      'wheelchair access needed'),
  (4,  'acme',   'Deniz Kaya',       'deniz.kaya@example.com',      '4012888888881881',    '1988-01-19', 'Izmir',     NULL),
  (5,  'globex', 'Elena Rossi',      'elena.rossi@example.org',     '5105 1051 0510 5100', '1967-05-30', 'Bologna',   'VIP, do not discount'),
  (6,  'acme',   'Farid Haddad',     'farid.haddad@example.com',    '6011111111111117',    '1995-09-08', 'Brussels',  'on parental leave until May'),
  (7,  'globex', 'Greta Lindqvist',  'greta.lindqvist@example.org', '3530111333300000',    '1973-12-14', 'Uppsala',   NULL),
  (8,  'acme',   'Hugo Pereira',     'hugo.pereira@example.com',    '4222222222222',       '1982-04-03', 'Porto',     'moved house, new address pending'),
  (9,  'globex', 'Ines Garcia',      'ines.garcia@example.org',     '371449635398431',     '1999-10-21', 'Valencia',  'student rate'),
  (10, 'acme',   'Jakub Kowalski',   'jakub.kowalski@example.com',  '6011-0009-9013-9424', '1961-06-17', 'Krakow',    'diabetic, mentioned on the phone'),
  (11, 'globex', 'Katja Berg',       'katja.berg@example.org',      '5200828282828210',    '1986-02-28', 'Oslo',      NULL),
  (12, 'acme',   'Liam O''Connor',   'liam.oconnor@example.com',    '4000056655665556',    '1993-08-11', 'Cork',      'asked for data export'),
  (13, 'globex', 'Mei Tanaka',       'mei.tanaka@example.org',      '3566002020360505',    '1977-03-05', 'Nagoya',    'contact only by mail'),
  (14, 'acme',   'Nadia Petrova',    'nadia.petrova@example.com',   '30569309025904',      '1990-12-01', 'Varna',     NULL),
  (15, 'globex', 'Oscar Jensen',     'oscar.jensen@example.org',    '38520000023237',      '1969-09-27', 'Aarhus',    'late payer'),
  (16, 'acme',   'Paula Fischer',    'paula.fischer@example.com',   '5019717010103742',    '1985-05-16', 'Graz',      'maiden name on the card'),
  (17, 'globex', 'Quentin Dubois',   'quentin.dubois@example.org',  '4917610000000000',    '1998-01-07', 'Nantes',    NULL),
  (18, 'acme',   'Rosa Silva',       'rosa.silva@example.com',      '6759649826438453',    '1974-10-10', 'Braga',     'court order on file'),
  (19, 'globex', 'Sven Olsen',       'sven.olsen@example.org',      '5425233430109903',    '1981-07-03', 'Bergen',    'married to customer 11'),
  (20, 'acme',   'Tereza Horakova',  'tereza.horakova@example.com', '2223000048410010',    '1996-11-23', 'Brno',      'new contract since March');

INSERT INTO orders (id, tenant_id, customer_id, amount, status, placed_at)
SELECT n, c.tenant_id, c.id,
       round((17.35 * n + 3.1 * c.id)::numeric, 2),
       (ARRAY['paid', 'paid', 'shipped', 'open', 'refunded'])[1 + n % 5],
       timestamptz '2025-01-06 09:00+00' + n * interval '31 hours'
FROM generate_series(1, 60) AS n
JOIN customers AS c ON c.id = 1 + (n * 7) % 20;
