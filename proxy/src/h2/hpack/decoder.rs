//! Header blocks, from the wire (RFC 7541 section 6).
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use super::HpackError;
use super::huffman;
use super::table::{DYNAMIC_START, DynamicTable, Line, static_line};

/// Scratch beyond this is given back after each block.
const SCRATCH_KEPT_BYTES: usize = 1024;

/// The reading end of a direction.
#[derive(Debug)]
pub struct Decoder {
    table: DynamicTable,
    /// What our settings allow the peer's table to take.
    table_bytes_max: usize,
    /// Strings that are Huffman-coded, and names that stand in the table that a field is about to enter.
    name: Vec<u8>,
    value: Vec<u8>,
}

/// What a literal is to the table (RFC 7541 section 6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Indexing {
    Inserted,
    Without,
    Never,
}

/// What is left of a block.
struct Block<'b> {
    rest: &'b [u8],
}

impl Decoder {
    /// `table_bytes_max`: what our SETTINGS_HEADER_TABLE_SIZE says.
    #[must_use]
    pub fn new(table_bytes_max: usize) -> Self {
        let table = DynamicTable::new(table_bytes_max);
        Self { table, table_bytes_max, name: Vec::new(), value: Vec::new() }
    }

    /// Reads a whole block, and hands over each line of it, in order.
    ///
    /// # Errors
    /// [`HpackError`]; the decoder is of no use any more.
    pub fn decode(&mut self, block: &[u8], mut line: impl FnMut(Line<'_>)) -> Result<(), HpackError> {
        let mut block = Block { rest: block };
        let mut fields_begun = false;
        while let Some(first) = block.rest.first().copied() {
            if first & 0x80 != 0 {
                line(self.indexed(block.integer(7)?)?);
            } else if first & 0xc0 == 0x40 {
                self.literal(&mut block, 6, Indexing::Inserted, &mut line)?;
            } else if first & 0xe0 == 0x20 {
                if fields_begun {
                    return Err(HpackError::LateTableSize);
                }
                self.resize(block.integer(5)?)?;
                continue;
            } else {
                let indexing = if first & 0x10 != 0 { Indexing::Never } else { Indexing::Without };
                self.literal(&mut block, 4, indexing, &mut line)?;
            }
            fields_begun = true;
        }
        for scratch in [&mut self.name, &mut self.value] {
            if scratch.capacity() > SCRATCH_KEPT_BYTES {
                *scratch = Vec::new();
            }
        }
        Ok(())
    }

    /// What the table takes, as RFC 7541 section 4.1 counts it.
    #[must_use]
    pub fn table_bytes(&self) -> usize {
        self.table.bytes()
    }

    fn indexed(&self, index: usize) -> Result<Line<'_>, HpackError> {
        let found = match index.checked_sub(DYNAMIC_START) {
            Some(behind_youngest) => self.table.get(behind_youngest),
            None => static_line(index),
        };
        found.ok_or(HpackError::UnknownIndex { index })
    }

    fn literal(
        &mut self,
        block: &mut Block<'_>,
        prefix_bits: u8,
        indexing: Indexing,
        line: &mut impl FnMut(Line<'_>),
    ) -> Result<(), HpackError> {
        let (mut name, mut value) = (std::mem::take(&mut self.name), std::mem::take(&mut self.value));
        let name_index = block.integer(prefix_bits)?;
        let name_read = match name_index {
            0 => block.string(&mut name)?,
            _ => {
                let indexed = self.indexed(name_index)?.name;
                name.clear();
                name.extend_from_slice(indexed);
                &name
            }
        };
        let value_read = block.string(&mut value)?;
        let read = Line::judged(name_read, value_read, indexing == Indexing::Never);
        line(read);
        if indexing == Indexing::Inserted {
            self.table.insert(read);
        }
        (self.name, self.value) = (name, value);
        Ok(())
    }

    fn resize(&mut self, bytes: usize) -> Result<(), HpackError> {
        if bytes > self.table_bytes_max {
            return Err(HpackError::TableTooLarge { bytes, bytes_max: self.table_bytes_max });
        }
        self.table.resize(bytes);
        Ok(())
    }
}

impl<'b> Block<'b> {
    /// An integer whose first bits stand in the next byte (RFC 7541 section 5.1). Nothing in a block needs more than 28 bits.
    fn integer(&mut self, prefix_bits: u8) -> Result<usize, HpackError> {
        let mask = (1usize << prefix_bits) - 1;
        let prefix = usize::from(self.byte()?) & mask;
        if prefix < mask {
            return Ok(prefix);
        }
        let mut value = prefix;
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(HpackError::IntegerOverflow)
    }

    /// A string (RFC 7541 section 5.2): as it stands in the block, or decoded into `scratch`.
    fn string<'s>(&mut self, scratch: &'s mut Vec<u8>) -> Result<&'s [u8], HpackError>
    where
        'b: 's,
    {
        let coded = self.rest.first().is_some_and(|first| first & 0x80 != 0);
        let length = self.integer(7)?;
        let (text, rest) = self.rest.split_at_checked(length).ok_or(HpackError::Truncated)?;
        self.rest = rest;
        if !coded {
            return Ok(text);
        }
        scratch.clear();
        huffman::decode(text, scratch)?;
        Ok(scratch)
    }

    fn byte(&mut self) -> Result<u8, HpackError> {
        let (first, rest) = self.rest.split_first().ok_or(HpackError::Truncated)?;
        self.rest = rest;
        Ok(*first)
    }
}
