use super::*;

fn values(tensor: &Tensor<1, Int>) -> Vec<i32> {
    tensor.to_data().iter::<i32>().collect()
}

#[test]
fn both_sides_hold_the_same_tokens_in_different_places() {
    let device = Device::default();
    let sequences = [vec![5, 6, 7], vec![8]];
    let right = TokenBatch::new(&sequences, 9, PaddingSide::Right, &device).unwrap();
    let left = TokenBatch::new(&sequences, 9, PaddingSide::Left, &device).unwrap();
    for batch in [&right, &left] {
        assert_eq!(batch.shape(), [2, 3]);
        assert_eq!(
            (
                batch.padded_tokens(),
                batch.real_tokens(),
                batch.max_id(),
                batch.longest()
            ),
            (6, 4, 8, 3)
        );
        let part = &batch.parts[0];
        assert_eq!(values(&part.ids), [5, 6, 7, 8]);
        assert_eq!(values(&part.positions), [0, 1, 2, 0]);
        assert_eq!(values(&part.last_rows), [2, 3]);
    }
    assert_eq!(values(right.unpack.as_ref().unwrap()), [0, 1, 2, 3, 3, 3]);
    assert_eq!(values(left.unpack.as_ref().unwrap()), [0, 1, 2, 3, 3, 3]);
    let even = TokenBatch::new(&[[1, 2], [3, 4]], 0, PaddingSide::Right, &device).unwrap();
    assert!(even.unpack.is_none() && even.order.is_none());
}

/// What sequences begin with is one run; their positions and last tokens are found.
#[test]
fn shared_beginnings_are_computed_once() {
    let device = Device::flex();
    let text = |end: u32| -> Vec<u32> { (0..20).chain([end, end + 1]).collect() };
    let sequences = [text(50), vec![7, 8], text(40)];
    let new = TokenBatch::new(&sequences, 9, PaddingSide::Left, &device).unwrap();
    let shared = TokenBatch::sharing(&sequences, 9, PaddingSide::Left, &device).unwrap();
    assert_eq!([new.computed_tokens(), new.real_tokens()], [46, 46]);
    assert_eq!([shared.computed_tokens(), shared.real_tokens()], [26, 46]);
    let ids = values(&shared.parts[0].ids);
    let read = |rows: Vec<i32>| -> Vec<i32> { rows.iter().map(|row| ids[*row as usize]).collect() };
    let unpack = read(values(shared.unpack.as_ref().unwrap()));
    for (row, sequence) in unpack.chunks(22).zip(&sequences) {
        let real: Vec<i32> = sequence.iter().map(|id| *id as i32).collect();
        assert_eq!(row[22 - real.len()..], real);
    }
    assert_eq!(read(shared.rows_at(&[19, 1, 20])), [19, 8, 40]);
    assert_eq!(
        read(shared.rows_before(&[vec![50, 51], vec![8], vec![41]])),
        [19, 50, 7, 40]
    );
    let last = values(&shared.parts[0].last_rows);
    let order = values(shared.order.as_ref().unwrap());
    let last = order.iter().map(|at| last[*at as usize]).collect();
    assert_eq!(read(last), [51, 8, 41]);
}

#[test]
fn bad_batches_are_refused() {
    let device = Device::default();
    let none: [Vec<u32>; 0] = [];
    let new = |sequences: &[Vec<u32>]| {
        TokenBatch::new(sequences, 0, PaddingSide::Right, &device).map(|_| ())
    };
    assert_eq!(new(&none), Err(BatchError::EmptyBatch));
    assert_eq!(
        new(&[vec![1], vec![]]),
        Err(BatchError::EmptySequence { row: 1 })
    );
    assert_eq!(
        new(&[vec![], vec![]]),
        Err(BatchError::EmptySequence { row: 0 })
    );
    assert_eq!(
        new(&[vec![u32::MAX]]),
        Err(BatchError::IdTooLarge {
            id: u32::MAX,
            row: 0
        })
    );
    let from_mask = |ids: &[Vec<u32>], mask: &[Vec<bool>]| {
        TokenBatch::from_mask(ids, mask, &device).map(|_| ())
    };
    assert_eq!(
        from_mask(&[vec![1]], &[]),
        Err(BatchError::RowCount { ids: 1, mask: 0 })
    );
    assert_eq!(
        from_mask(&[vec![1, 2], vec![1]], &[vec![true; 2], vec![true; 1]]),
        Err(BatchError::Ragged {
            row: 1,
            ids: 1,
            mask: 1,
            expected: 2
        })
    );
    assert_eq!(
        from_mask(&[vec![1, 2]], &[vec![false; 2]]),
        Err(BatchError::EmptySequence { row: 0 })
    );
}
