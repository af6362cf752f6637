"""metad's database: its tables, opening it safely, and transactions that many share."""
